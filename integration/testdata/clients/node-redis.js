// The conversation of clients_test.go with node-redis.
const assert = require("node:assert");
const { createClient, RESP_TYPES } = require("redis");

async function main() {
  let queue = process.env.QUEUE;
  const connection = createClient({
    socket: { host: process.env.HOST, port: Number(process.env.PORT), reconnectStrategy: false },
    password: process.env.PASSWORD || undefined,
    name: "node-redis",
  });
  connection.on("error", (error) => { throw error; });
  await connection.connect();
  const client = connection.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const run = (...words) => client.sendCommand(words.map((word) => (Buffer.isBuffer(word) ? word : String(word))));
  const refused = (code, ...words) => assert.rejects(run(...words), (error) => error.message.startsWith(code + " "));

  assert.equal(await connection.ping(), "PONG");
  assert.equal(await run("QLEN", queue), 0);
  assert.equal(await run("QCONSUME", queue, "me"), null);
  const bodies = [Buffer.from("first\r\n\0\xff", "latin1"), Buffer.alloc(0), Buffer.from("third")];
  const first = await run("QPUSH", queue, ...bodies);
  const [batch, , messages] = await run("QCONSUME", queue, "me");
  messages.forEach(([id, body, attempt, pushed, headers], i) => {
    assert.equal(id, first + i);
    assert.ok(bodies[i].equals(body));
    assert.equal(attempt, 1);
    assert.ok(pushed > 0);
    assert.equal(Object.keys(headers).length, 0);
  });
  await refused("LOCKED", "QCONSUME", queue, "other");
  assert.equal(await run("QACK", queue, batch), 3);
  assert.equal(await run("QACK", queue, batch), 0);
  await refused("NOBATCH", "QACK", queue, 999999999);
  assert.equal(await run("QLEN", queue), 0);
  queue += "/wait";
  const [next, , woken] = await run("QCONSUME", queue, "me", "BLOCK", 15000); // the test pushes when this waits
  assert.equal(woken[0][1].toString(), "wake up");
  assert.equal(await run("QACK", queue, next), 1);
  assert.equal(await run("QLEN", queue), 0);
  await connection.close();
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
