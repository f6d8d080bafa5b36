"""The conversation of clients_test.go with redis-py."""
import os
import redis

queue = os.environ["QUEUE"]
client = redis.Redis(host=os.environ["HOST"], port=int(os.environ["PORT"]), password=os.environ["PASSWORD"] or None,
                     client_name="python", socket_timeout=20)
run = client.execute_command


def refused(code, *command):
    try:
        reply = run(*command)
    except redis.ResponseError as error:
        assert str(error).startswith(code + " "), error
        return
    raise AssertionError(f"{command} answered {reply!r}")


assert client.ping()
assert run("QLEN", queue) == 0
assert run("QCONSUME", queue, "me") is None
bodies = [b"first\r\n\x00\xff", b"", b"third"]
first = run("QPUSH", queue, *bodies)
batch, deadline, messages = run("QCONSUME", queue, "me")
assert [m[1] for m in messages] == bodies, messages
assert [m[0] for m in messages] == [first, first + 1, first + 2], messages
assert all(m[2] == 1 and m[3] > 0 and not m[4] for m in messages), messages
refused("LOCKED", "QCONSUME", queue, "other")
assert run("QACK", queue, batch) == 3
assert run("QACK", queue, batch) == 0
refused("NOBATCH", "QACK", queue, 999999999)
with client.pipeline(transaction=False) as pipe:
    for i in range(100):
        pipe.execute_command("QPUSH", queue, f"piped {i}")
    ids = pipe.execute()
assert ids == list(range(ids[0], ids[0] + 100)), ids
for i in range(2):  # what redis-py's pipeline() is by default: nothing of it is done when it raises, so trying again doubles nothing
    with client.pipeline() as pipe:
        for body in ["transaction", "x" * 100_000]:
            pipe.execute_command("QPUSH", queue + "/never", body)
        try:
            raise AssertionError(f"a transaction answered {pipe.execute()}")
        except redis.ResponseError as error:
            assert "MULTI" in str(error) and "no transactions" in str(error), error
    assert run("QLEN", queue + "/never") == 0
batch, deadline, messages = run("QCONSUME", queue, "me", "COUNT", 1000)
assert [m[1].decode() for m in messages] == [f"piped {i}" for i in range(100)]
assert run("QACK", queue, batch) == 100
assert run("QLEN", queue) == 0
queue += "/wait"
batch, deadline, messages = run("QCONSUME", queue, "me", "BLOCK", 15000)  # the test pushes when this waits
assert messages[0][1] == b"wake up", messages
assert run("QACK", queue, batch) == 1
assert run("QLEN", queue) == 0
print("done")
