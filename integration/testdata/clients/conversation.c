/* The conversation of clients_test.go with hiredis. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static redisContext *client;

static void check(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, client ? client->errstr : "");
        exit(1);
    }
}

static redisReply *reply_of(redisReply *r, const char *what) {
    check(r != NULL, what);
    if (r->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "%s: %s\n", what, r->str);
        exit(1);
    }
    return r;
}

static void refused(redisReply *r, const char *code) {
    check(r != NULL && r->type == REDIS_REPLY_ERROR && strncmp(r->str, code, strlen(code)) == 0, code);
    freeReplyObject(r);
}

int main(void) {
    const char *queue = getenv("QUEUE"), *password = getenv("PASSWORD");
    struct timeval limit = {20, 0};
    client = redisConnectWithTimeout(getenv("HOST"), atoi(getenv("PORT")), limit);
    check(client != NULL && !client->err, "connect");
    check(redisSetTimeout(client, limit) == REDIS_OK, "timeout");
    if (*password) freeReplyObject(reply_of(redisCommand(client, "AUTH %s", password), "AUTH"));

    redisReply *r = reply_of(redisCommand(client, "QCONSUME %s me", queue), "QCONSUME");
    check(r->type == REDIS_REPLY_NIL, "an empty queue");
    freeReplyObject(r);
    const char first[] = "first\r\n\0\xff";
    r = reply_of(redisCommand(client, "QPUSH %s %b %b %s", queue, first, sizeof first - 1, "", (size_t)0, "third"), "QPUSH");
    check(r->type == REDIS_REPLY_INTEGER, "QPUSH answers an integer");
    long long id = r->integer;
    freeReplyObject(r);

    r = reply_of(redisCommand(client, "QCONSUME %s me", queue), "QCONSUME");
    check(r->type == REDIS_REPLY_ARRAY && r->elements == 3 && r->element[2]->elements == 3, "a batch of three");
    long long batch = r->element[0]->integer;
    for (int i = 0; i < 3; i++) {
        redisReply **m = r->element[2]->element[i]->element;
        check(m[0]->integer == id + i && m[2]->integer == 1 && m[4]->elements == 0, "message");
    }
    redisReply *body = r->element[2]->element[0]->element[1];
    check(body->len == sizeof first - 1 && memcmp(body->str, first, body->len) == 0, "a body of any bytes");
    freeReplyObject(r);

    refused(redisCommand(client, "QCONSUME %s other", queue), "LOCKED ");
    r = reply_of(redisCommand(client, "QACK %s %lld", queue, batch), "QACK");
    check(r->integer == 3, "QACK");
    freeReplyObject(r);
    refused(redisCommand(client, "QACK %s 999999999", queue), "NOBATCH ");

    /* A thousand pushes in one go, and their replies in order. */
    for (int i = 0; i < 1000; i++) check(redisAppendCommand(client, "QPUSH %s piped", queue) == REDIS_OK, "append");
    for (int i = 0; i < 1000; i++) {
        check(redisGetReply(client, (void **)&r) == REDIS_OK && r->type == REDIS_REPLY_INTEGER, "a piped reply");
        check(i == 0 || r->integer == id + 1, "ids in order");
        id = r->integer;
        freeReplyObject(r);
    }
    r = reply_of(redisCommand(client, "QCONSUME %s me COUNT 1000", queue), "QCONSUME");
    check(r->element[2]->elements == 1000, "a thousand messages");
    batch = r->element[0]->integer;
    freeReplyObject(r);
    freeReplyObject(reply_of(redisCommand(client, "QACK %s %lld", queue, batch), "QACK"));

    r = reply_of(redisCommand(client, "QLEN %s", queue), "QLEN");
    check(r->integer == 0, "QLEN");
    freeReplyObject(r);
    char other[256];
    snprintf(other, sizeof other, "%s/wait", queue);
    queue = other;
    r = reply_of(redisCommand(client, "QCONSUME %s me BLOCK 15000", queue), "QCONSUME"); /* the test pushes when this waits */
    check(r->type == REDIS_REPLY_ARRAY && strcmp(r->element[2]->element[0]->element[1]->str, "wake up") == 0, "the message that was waited for");
    batch = r->element[0]->integer;
    freeReplyObject(r);
    r = reply_of(redisCommand(client, "QACK %s %lld", queue, batch), "QACK");
    check(r->integer == 1, "QACK");
    freeReplyObject(r);
    r = reply_of(redisCommand(client, "QLEN %s", queue), "QLEN");
    check(r->integer == 0, "QLEN at the end");
    freeReplyObject(r);
    redisFree(client);
    puts("done");
    return 0;
}
