# The conversation of clients_test.go with the redis gem.
require "redis"

queue = ENV["QUEUE"]
password = ENV["PASSWORD"].empty? ? nil : ENV["PASSWORD"]
client = Redis.new(host: ENV["HOST"], port: ENV["PORT"].to_i, password: password, id: "ruby", timeout: 20)

def check(holds, what)
  abort(what) unless holds
end

def refused(client, code, *command)
  reply = client.call(*command)
  abort("#{command} answered #{reply}")
rescue Redis::CommandError => error
  check(error.message.start_with?(code + " "), error.message)
end

check(client.ping == "PONG", "PING")
check(client.call("QLEN", queue) == 0, "QLEN")
check(client.call("QCONSUME", queue, "me").nil?, "QCONSUME of an empty queue")
bodies = ["first\r\n\0\xff".b, "".b, "third".b]
first = client.call("QPUSH", queue, *bodies)
batch, _deadline, messages = client.call("QCONSUME", queue, "me")
check(messages.map { |m| m[1].b } == bodies, "bodies: #{messages}")
check(messages.map { |m| m[0] } == [first, first + 1, first + 2], "ids: #{messages}")
check(messages.all? { |m| m[2] == 1 && m[3] > 0 && m[4].empty? }, "attempts, times, headers: #{messages}")
refused(client, "LOCKED", "QCONSUME", queue, "other")
check(client.call("QACK", queue, batch) == 3, "QACK")
check(client.call("QACK", queue, batch) == 0, "QACK again")
refused(client, "NOBATCH", "QACK", queue, "999999999")
check(client.call("QLEN", queue) == 0, "QLEN")
queue += "/wait"
batch, _deadline, messages = client.call("QCONSUME", queue, "me", "BLOCK", "15000") # the test pushes when this waits
check(messages[0][1] == "wake up", "the message that was waited for")
check(client.call("QACK", queue, batch) == 1, "QACK")
check(client.call("QLEN", queue) == 0, "QLEN at the end")
puts "done"
