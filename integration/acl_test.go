//go:build linux

package integration

// Users and rules beside a real Redis: the same ACL commands, the same replies. And redis-py with a user's name.

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

// sameAsRedis are commands whose replies do not depend on which commands a server has. EXISTS of a key that may only be
// written is not among them: Redis allows it, Quail does not.
var sameAsRedis = []string{
	"ACL WHOAMI", "ACL USERS", "ACL GETUSER nobody", "ACL DELUSER default", "ACL DELUSER nobody", "ACL CAT nonesuch", "ACL FOO", "ACL SETUSER",
	"ACL GENPASS 0", "ACL GENPASS 4097", "ACL GENPASS x", "ACL LOG x", "ACL LOG", "ACL LOG RESET", "ACL LOAD x", "ACL WHOAMI x",
	"ACL SETUSER u foo", "ACL SETUSER u +nonesuch", "ACL SETUSER u +@nonesuch", "ACL SETUSER u -@nonesuch", "ACL SETUSER u #12", "ACL SETUSER u !12",
	"ACL SETUSER u <nopw", "ACL SETUSER u allkeys ~a", "ACL SETUSER u %X~a", "ACL SETUSER u %~a", "ACL SETUSER u +client|nonesuch",
	"ACL SETUSER u on >pw ~a* %R~b* %W~c* +ping +exists +del +client|id +acl|whoami", "ACL GETUSER u flags", "ACL USERS",
	"ACL DRYRUN nobody ping", "ACL DRYRUN u nonesuch", "ACL DRYRUN u exists", "ACL DRYRUN u exists a1", "ACL DRYRUN u exists b1",
	"ACL DRYRUN u del a1 b1", "ACL DRYRUN u del c1", "ACL DRYRUN u del other", "ACL DRYRUN u client id",
	"ACL DRYRUN u client list", "ACL DRYRUN u echo x", "ACL SETUSER u #12", "AUTH u wrong", "AUTH nobody pw", "AUTH a b c", "AUTH x",
	"HELLO 3 AUTH u wrong", "AUTH u pw", "ACL WHOAMI", "PING", "EXISTS a1", "EXISTS b1", "DEL b1", "DEL a1 b1", "ECHO x", "CLIENT LIST",
	"CONFIG GET maxmemory", "NONESUCH x", "ACL LIST", "RESET", "ACL WHOAMI", "ACL SETUSER u off", "AUTH u pw", "ACL SETUSER u on nopass", "AUTH u anything",
	"RESET", "ACL SETUSER u resetpass", "AUTH u pw", "ACL SETUSER u reset", "ACL DELUSER u nobody", "CLIENT KILL USER u", "ACL SETUSER u u",
	"CONFIG SET requirepass hush", "ECHO x", "AUTH hush", "AUTH default hush", "RESET", "ECHO x", "AUTH hush2", "AUTH hush", "CONFIG SET requirepass", "SLOWLOG RESET",
	"SLOWLOG GET x", "SLOWLOG GET -2", "SLOWLOG FOO",
}

// A library that learned Redis's words must meet the same here.
func TestACLAnswersAsRedis(t *testing.T) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("SKIP: redis-server is not installed")
	}
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	other := exec.Command(program, "--bind", host, "--port", port, "--save", "", "--dir", t.TempDir())
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Process.Kill()
		other.Wait()
	})
	var theirs redis.Conn
	if !holdsWithin(startTimeout, func() bool {
		theirs, err = redis.Dial("tcp", address, redis.DialConnectTimeout(time.Second), redis.DialReadTimeout(replyTimeout))
		if err != nil {
			return false
		}
		_, err = theirs.Do("PING")
		return err == nil
	}) {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours := startServer(t, "--auth-delay", "0").connect(t)
	for _, line := range sameAsRedis {
		words := strings.Fields(line)
		args := make([]any, len(words)-1)
		for i, word := range words[1:] {
			args[i] = word
		}
		want, wantErr := theirs.Do(words[0], args...)
		got, gotErr := ours.Do(words[0], args...)
		if strings.HasPrefix(line, "ACL GETUSER u") {
			continue
		}
		if plain(got, gotErr) != plain(want, wantErr) {
			t.Errorf("%s\nQuail: %s\nRedis: %s", line, plain(got, gotErr), plain(want, wantErr))
		}
	}
}

func plain(reply any, err error) string {
	if err != nil {
		return "-" + err.Error()
	}
	return strings.ReplaceAll(fmt.Sprintf("%s", reply), "%!s", "")
}

const withUser = `
import os, redis
address = dict(host=os.environ["HOST"], port=int(os.environ["PORT"]))
boss = redis.Redis(**address)
boss.acl_setuser("shop", enabled=True, passwords=["+pw"], keys=["orders*"], commands=["+@produce", "+@consume"])
user = boss.acl_getuser("shop")
assert user["enabled"] and user["keys"] and len(user["passwords"]) == 1, user
assert sorted(boss.acl_users()) == ["default", "shop"], boss.acl_users()
shop = redis.Redis(username="shop", password="pw", **address)
shop.execute_command("QPUSH", "orders", "hello")
assert shop.execute_command("QCONSUME", "orders", "me")[2][0][1] == b"hello"
for words in [("QPUSH", "other", "x"), ("QDEL", "orders"), ("ACL", "LIST")]:
    try:
        shop.execute_command(*words)
        assert False, words
    except redis.exceptions.NoPermissionError:
        pass
try:
    redis.Redis(username="shop", password="wrong", **address).ping()
    assert False
except redis.exceptions.ResponseError as error:
    assert "WRONGPASS" in str(error) or "invalid username-password" in str(error), error
assert boss.acl_log()[0]["username"] == "shop", boss.acl_log()
assert boss.acl_deluser("shop") == 1
print("done")
`

func TestRedisPyWithUser(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := probe(nil, python, "-c", "import redis"); err != nil {
		t.Skipf("SKIP: redis-py is not installed (Debian: python3-redis): %v", err)
	}
	s := startServer(t, "--auth-delay", "10")
	host, port, _ := strings.Cut(s.addr, ":")
	out, err := exec.Command("env", "HOST="+host, "PORT="+port, python, "-c", withUser).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}
