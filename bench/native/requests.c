#define _GNU_SOURCE
#include "requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

#define DIGITS 12

static const char *const PLACES[NUMBERS] = {
    [CONNECTION] = "@CONNECTION@",
    [CYCLE] = "@CYCLE_____@",
    [TRAJECTORY] = "@TRAJECTORY@",
};

static struct bytes read_file(const char *path) {
    struct bytes bytes = {0};
    char piece[4096];
    FILE *file = fopen(path, "rb");
    if (file == NULL) die(2, "--request %s: %m", path);
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0;) bytes_add(&bytes, piece, n);
    if (ferror(file)) die(2, "--request %s: %m", path);
    fclose(file);
    return bytes;
}

static void check(const struct bytes *bytes, const char *path) {
    struct fields fields;
    size_t head = head_length(bytes->data, bytes->length);
    const char *line_end = head > 0 ? memchr(bytes->data, '\r', head) : NULL;
    if (line_end == NULL || line_end - bytes->data < 9 || memcmp(line_end - 9, " HTTP/1.1", 9) != 0) {
        die(2, "--request %s: it must be a raw HTTP/1.1 request, each line of its head ending with CR LF", path);
    }
    if (memcmp(bytes->data, "HEAD ", 5) == 0) die(2, "--request %s: any method but HEAD, whose answer has no body", path);
    if (!read_fields(bytes->data, head, &fields)) die(2, "--request %s: a field of its head is malformed", path);
    if (fields.chunked) die(2, "--request %s: its body must have a content-length, not be chunked", path);
    if (fields.length != bytes->length - head) {
        die(2, "--request %s: content-length must be %zu, the length of the body", path, bytes->length - head);
    }
}

static void find_places(struct request *request) {
    for (const char *at = request->data; (at = memchr(at, '@', request->length - (size_t)(at - request->data))); at++) {
        size_t offset = (size_t)(at - request->data);
        for (enum number number = 0; number < NUMBERS && request->length - offset >= DIGITS; number++) {
            if (memcmp(at, PLACES[number], DIGITS) != 0) continue;
            request->places = realloc(request->places, (request->place_count + 1) * sizeof(struct place));
            if (request->places == NULL) die(1, "out of memory");
            request->places[request->place_count++] = (struct place){number, offset};
        }
    }
}

struct request request_read(const char *path) {
    struct bytes bytes = read_file(path);
    check(&bytes, path);
    struct request request = {.data = bytes.data, .length = bytes.length};
    find_places(&request);
    return request;
}

void request_fill(struct request *request, const uint64_t numbers[NUMBERS]) {
    for (size_t i = 0; i < request->place_count; i++) {
        char *digit = request->data + request->places[i].at + DIGITS;
        uint64_t number = numbers[request->places[i].number];
        for (int n = 0; n < DIGITS; n++, number /= 10) *--digit = (char)('0' + number % 10);
    }
}
