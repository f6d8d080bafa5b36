// The conversation of clients_test.go with ioredis.
const assert = require("node:assert");
const { Redis } = require("ioredis");

async function main() {
  let queue = process.env.QUEUE;
  const client = new Redis({
    host: process.env.HOST,
    port: Number(process.env.PORT),
    password: process.env.PASSWORD || undefined,
    connectionName: "ioredis",
    retryStrategy: null,
    maxRetriesPerRequest: 0,
  });
  const run = (...words) => client.callBuffer(...words);
  const refused = (code, ...words) => assert.rejects(run(...words), (error) => error.message.startsWith(code + " "));

  assert.equal(await client.ping(), "PONG");
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
  const ids = await Promise.all(Array.from({ length: 100 }, (_, i) => run("QPUSH", queue, `piped ${i}`)));
  assert.deepEqual(ids, ids.map((_, i) => ids[0] + i));
  const [piped] = await run("QCONSUME", queue, "me", "COUNT", 1000);
  assert.equal(await run("QACK", queue, piped), 100);
  assert.equal(await run("QLEN", queue), 0);
  queue += "/wait";
  const [next, , woken] = await run("QCONSUME", queue, "me", "BLOCK", 15000); // the test pushes when this waits
  assert.equal(woken[0][1].toString(), "wake up");
  assert.equal(await run("QACK", queue, next), 1);
  assert.equal(await run("QLEN", queue), 0);
  await client.quit();
  console.log("done");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
