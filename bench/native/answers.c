#define _GNU_SOURCE
#include "answers.h"

#include <stdio.h>
#include <string.h>

#include "common.h"

#define DIGITS 19 /* of the time in an event, with leading zeros: all events have one length */
#define ZEROS "0000000000000000000"
#define ID "\"id\":\"chatcmpl-bench\",\"created\":1760000000,\"model\":\"bench\""
#define SENTENCE "The quick brown fox jumps over the lazy dog, counts what it carries, and comes back by night. "
#define FOUR(text) text text text text

static const char COMPLETION[] =
    "{" ID ",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
    FOUR(SENTENCE) FOUR(SENTENCE) FOUR(SENTENCE) SENTENCE
    "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":512,\"completion_tokens\":286,\"total_tokens\":798}}";

static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1760000000,\"owned_by\":\"bench\"}]}";

static const char BAD_SETTING[] =
    "{\"error\":{\"message\":\"/interval/N takes 0 to 3600000000 microseconds, /chunks/N 1 to 1000000 events\"}}";

#define EVENT(role, reason)                                                                                    \
    "data: {" ID ",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{" role             \
    "\"content\":\"t" ZEROS "\"},\"finish_reason\":" reason "}]}\n\n"

/* By whether it is the first and whether it is the last of its stream. */
static const char *const EVENTS[2][2] = {
    {EVENT("", "null"), EVENT("", "\"stop\"")},
    {EVENT("\"role\":\"assistant\",", "null"), EVENT("\"role\":\"assistant\",", "\"stop\"")},
};

static struct {
    char data[EVENT_SIZE];
    size_t length, time_at;
} templates[2][2];

static struct answer text(const char *data) {
    return (struct answer){.data = strdup(data), .length = strlen(data)};
}

static struct answer json(const char *status, const char *body) {
    struct answer answer;
    int length = asprintf(&answer.data, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                          status, strlen(body), body);
    if (length < 0) die(1, "out of memory");
    answer.length = (size_t)length;
    return answer;
}

static void make_templates(void) {
    for (int first = 0; first < 2; first++) {
        for (int last = 0; last < 2; last++) {
            const char *event = EVENTS[first][last];
            char *data = templates[first][last].data;
            int length = snprintf(data, EVENT_SIZE, "%zx\r\n%s\r\n", strlen(event), event);
            if (length >= EVENT_SIZE) die(1, "EVENT_SIZE is too small");
            templates[first][last].length = (size_t)length;
            templates[first][last].time_at = (size_t)(strstr(data, ZEROS) - data);
        }
    }
}

void answers_make(struct answers *answers) {
    *answers = (struct answers){
        .completion = json("200 OK", COMPLETION),
        .models = json("200 OK", MODELS),
        .empty = json("200 OK", "{}"),
        .bad_setting = json("400 Bad Request", BAD_SETTING),
        .not_found = json("404 Not Found", "{\"error\":{\"message\":\"PUT knows /interval/N and /chunks/N\"}}"),
        .not_allowed = json("405 Method Not Allowed", "{\"error\":{\"message\":\"POST, GET or PUT\"}}"),
        .malformed = json("400 Bad Request", "{\"error\":{\"message\":\"this is not HTTP/1.1\"}}"),
        .stream_head = text("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                            "transfer-encoding: chunked\r\n\r\n"),
        .stream_end = text("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"),
        .go_on = text("HTTP/1.1 100 Continue\r\n\r\n"),
    };
    make_templates();
}

size_t write_event(char *to, bool first, bool last) {
    uint64_t now = now_ns();
    size_t length = templates[first][last].length;
    memcpy(to, templates[first][last].data, length);
    for (char *digit = to + templates[first][last].time_at + DIGITS; now > 0; now /= 10) {
        *--digit = (char)('0' + now % 10);
    }
    return length;
}
