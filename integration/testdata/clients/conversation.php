<?php
// The conversation of clients_test.go with phpredis.

$queue = getenv("QUEUE");
$client = new Redis();
$client->connect(getenv("HOST"), (int) getenv("PORT"), 5.0, null, 0, 20.0);
if (getenv("PASSWORD") !== "") {
    check($client->auth(getenv("PASSWORD")), "AUTH");
}

function check($holds, $what) {
    if (!$holds) {
        global $client;
        fwrite(STDERR, "$what: " . var_export($client->getLastError(), true) . "\n");
        exit(1);
    }
}

// phpredis throws for some codes and answers false for the others.
function refused($code, ...$command) {
    global $client;
    $client->clearLastError();
    try {
        $reply = $client->rawCommand(...$command);
        $error = (string) $client->getLastError();
    } catch (RedisException $thrown) {
        $reply = false;
        $error = $thrown->getMessage();
    }
    check($reply === false && str_starts_with($error, "$code "), implode(" ", $command));
}

check($client->ping() == true, "PING");
check($client->rawCommand("QLEN", $queue) === 0, "QLEN");
check(!$client->rawCommand("QCONSUME", $queue, "me"), "QCONSUME of an empty queue");
$bodies = ["first\r\n\0\xff", "", "third"];
$first = $client->rawCommand("QPUSH", $queue, ...$bodies);
[$batch, $deadline, $messages] = $client->rawCommand("QCONSUME", $queue, "me");
check(array_column($messages, 1) === $bodies, "bodies");
check(array_column($messages, 0) === [$first, $first + 1, $first + 2], "ids");
check(array_column($messages, 2) === [1, 1, 1], "attempts");
refused("LOCKED", "QCONSUME", $queue, "other");
check($client->rawCommand("QACK", $queue, $batch) === 3, "QACK");
check($client->rawCommand("QACK", $queue, $batch) === 0, "QACK again");
refused("NOBATCH", "QACK", $queue, "999999999");
check($client->rawCommand("QLEN", $queue) === 0, "QLEN");
$queue .= "/wait";
[$batch, $deadline, $messages] = $client->rawCommand("QCONSUME", $queue, "me", "BLOCK", "15000"); // the test pushes when this waits
check($messages[0][1] === "wake up", "the message that was waited for");
check($client->rawCommand("QACK", $queue, $batch) === 1, "QACK");
check($client->rawCommand("QLEN", $queue) === 0, "QLEN at the end");
echo "done\n";
