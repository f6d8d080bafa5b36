# The conversation of clients_test.go with Perl's Redis.
use strict;
use warnings;
use Redis;

my $queue = $ENV{QUEUE};
my %auth = length $ENV{PASSWORD} ? (password => $ENV{PASSWORD}) : ();
my $client = Redis->new(server => "$ENV{HOST}:$ENV{PORT}", name => "perl", cnx_timeout => 5, read_timeout => 20, %auth);

sub check { my ($holds, $what) = @_; die "$what\n" unless $holds }

sub refused {
    my ($code, $command, @words) = @_;
    my $reply = eval { $client->$command(@words) };
    check(!defined $reply && $@ =~ /\b\Q$code\E /, "$command @words: $@");
}

check($client->ping eq "PONG", "PING");
check($client->qlen($queue) == 0, "QLEN");
check(!defined scalar $client->qconsume($queue, "me"), "QCONSUME of an empty queue");
my @bodies = ("first\r\n\0\xff", "", "third");
my $first = $client->qpush($queue, @bodies);
my $got = $client->qconsume($queue, "me");
my ($batch, $deadline, $messages) = @$got;
for my $i (0 .. 2) {
    my ($id, $body, $attempt, $pushed, $headers) = @{$messages->[$i]};
    check($id == $first + $i && $body eq $bodies[$i] && $attempt == 1 && $pushed > 0 && !@$headers, "message $i");
}
refused("LOCKED", "qconsume", $queue, "other");
check($client->qack($queue, $batch) == 3, "QACK");
check($client->qack($queue, $batch) == 0, "QACK again");
refused("NOBATCH", "qack", $queue, 999999999);
check($client->qlen($queue) == 0, "QLEN");
$queue .= "/wait";
$got = $client->qconsume($queue, "me", "BLOCK", 15000);    # the test pushes when this waits
check($got->[2][0][1] eq "wake up", "the message that was waited for");
check($client->qack($queue, $got->[0]) == 1, "QACK");
check($client->qlen($queue) == 0, "QLEN at the end");
print "done\n";
