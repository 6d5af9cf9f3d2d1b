#define _GNU_SOURCE
#include "common.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void arm_timer(int timer, uint64_t at) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) < 0) die(1, "timerfd_settime: %m");
}

uint64_t raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) die(1, "getrlimit: %m");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) die(1, "setrlimit: %m");
    return limit.rlim_cur;
}

bool whole_number(const char *text, size_t length, uint64_t least, uint64_t most, uint64_t *value) {
    uint64_t number = 0;
    if (length == 0 || length > 18) return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    if (number < least || number > most) return false;
    *value = number;
    return true;
}

_Noreturn void die(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(code);
}

void bytes_add(struct bytes *bytes, const void *data, size_t length) {
    if (length == 0) return;
    if (bytes->length + length > bytes->capacity) {
        bytes->capacity = 2 * bytes->capacity > bytes->length + length ? 2 * bytes->capacity : bytes->length + length;
        bytes->data = realloc(bytes->data, bytes->capacity);
        if (bytes->data == NULL) die(1, "out of memory");
    }
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
}

void bytes_drop(struct bytes *bytes, size_t length) {
    if (length == 0) return;
    bytes->length -= length;
    memmove(bytes->data, bytes->data + length, bytes->length);
}

void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){0};
}

size_t head_length(const char *data, size_t length) {
    const char *end = length == 0 ? NULL : memmem(data, length, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - data) + 4;
}

/* Whether a field's value has this word, in any case. */
static bool says(const char *value, size_t length, const char *word) {
    size_t size = strlen(word);
    for (size_t i = 0; i + size <= length; i++) {
        if (strncasecmp(value + i, word, size) == 0) return true;
    }
    return false;
}

static bool named(const char *name, size_t length, const char *field) {
    return length == strlen(field) && strncasecmp(name, field, length) == 0;
}

static bool read_field(const char *name, size_t name_length, const char *value, size_t length, struct fields *fields) {
    if (named(name, name_length, "content-length")) {
        fields->has_length = true;
        return whole_number(value, length, 0, 1000000000000000u, &fields->length);
    }
    if (named(name, name_length, "transfer-encoding")) fields->chunked = says(value, length, "chunked");
    else if (named(name, name_length, "connection")) fields->close = says(value, length, "close");
    else if (named(name, name_length, "content-type")) fields->event_stream = says(value, length, "text/event-stream");
    else if (named(name, name_length, "expect")) fields->expects_continue = says(value, length, "100-continue");
    return true;
}

bool read_fields(const char *head, size_t length, struct fields *fields) {
    const char *at = memchr(head, '\n', length), *end = head + length - 2;
    *fields = (struct fields){0};
    for (at++; at < end;) {
        const char *line_end = memchr(at, '\r', (size_t)(end - at) + 1);
        if (line_end == NULL) return false;
        const char *colon = memchr(at, ':', (size_t)(line_end - at));
        if (colon == NULL || line_end[1] != '\n') return false;
        const char *value = colon + 1, *value_end = line_end;
        while (value < value_end && (*value == ' ' || *value == '\t')) value++;
        while (value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t')) value_end--;
        if (!read_field(at, (size_t)(colon - at), value, (size_t)(value_end - value), fields)) return false;
        at = line_end + 2;
    }
    return true;
}

void body_begin(struct body *body, const struct fields *fields, bool until_close) {
    *body = (struct body){.kind = BODY_LENGTH, .left = fields->length};
    if (fields->chunked) *body = (struct body){.kind = BODY_CHUNKED};
    else if (!fields->has_length && until_close) *body = (struct body){.kind = BODY_UNTIL_CLOSE};
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* One byte of what is around the chunks; false if it may not be there. */
static bool chunk_byte(struct body *body, char c, bool *end) {
    switch (body->state) {
    case CHUNK_SIZE: {
        int digit = hex_digit(c);
        if (digit >= 0) {
            body->left = body->left * 16 + (uint64_t)digit;
            return ++body->digits <= 12;
        }
        if (body->digits == 0 || (c != '\r' && c != ';' && c != ' ' && c != '\t')) return false;
        body->state = CHUNK_EXTENSION;
        return true;
    }
    case CHUNK_EXTENSION:
        if (c == '\n') body->state = body->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
        return true;
    case CHUNK_DATA_END:
        if (c == '\r') return body->digits++ == 0;
        if (c != '\n' || body->digits != 1) return false;
        body->state = CHUNK_SIZE;
        body->digits = 0;
        return true;
    case CHUNK_TRAILER: /* at the beginning of a line */
        if (c == '\n') *end = true;
        else if (c != '\r') body->state = CHUNK_TRAILER_LINE;
        return true;
    default:
        if (c == '\n') body->state = CHUNK_TRAILER;
        return true;
    }
}

static enum body_step take_piece(struct body *body, const char **at, const char *end, const char **piece, size_t *length) {
    size_t here = (size_t)(end - *at);
    *length = here < body->left ? here : (size_t)body->left;
    *piece = *at;
    *at += *length;
    body->left -= *length;
    return BODY_PIECE;
}

enum body_step body_next(struct body *body, const char **at, const char *end, const char **piece, size_t *length) {
    if (body->kind == BODY_LENGTH && body->left == 0) return BODY_END;
    while (*at < end) {
        if (body->kind == BODY_LENGTH) return take_piece(body, at, end, piece, length);
        if (body->kind == BODY_UNTIL_CLOSE) {
            body->left = UINT64_MAX;
            return take_piece(body, at, end, piece, length);
        }
        if (body->state == CHUNK_DATA) {
            enum body_step step = take_piece(body, at, end, piece, length);
            if (body->left == 0) {
                body->state = CHUNK_DATA_END;
                body->digits = 0;
            }
            return step;
        }
        bool whole = false;
        if (!chunk_byte(body, *(*at)++, &whole)) return BODY_MALFORMED;
        if (whole) return BODY_END;
    }
    return BODY_MORE;
}
