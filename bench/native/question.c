#define _GNU_SOURCE
#include "question.h"

#include <string.h>

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

bool question_begin(struct question *question, const char *head, size_t length) {
    struct fields fields;
    const char *line_end = memchr(head, '\r', length);
    const char *path = memchr(head, ' ', (size_t)(line_end - head));
    const char *version = path == NULL ? NULL : memchr(path + 1, ' ', (size_t)(line_end - path) - 1);
    if (version == NULL || !begins(version, " HTTP/1.") || !read_fields(head, length, &fields)) return false;
    size_t path_length = (size_t)(version - ++path);
    if (path_length >= sizeof(question->path)) path_length = sizeof(question->path) - 1;
    memcpy(question->path, path, path_length);
    question->path[path_length] = '\0';
    question->method = begins(head, "POST ") ? POST : begins(head, "GET ") ? GET : begins(head, "PUT ") ? PUT : OTHER;
    question->close = fields.close || version[8] == '0'; /* HTTP/1.0 */
    question->expects_continue = fields.expects_continue;
    question->wants_stream = false;
    question->tail_length = 0;
    body_begin(&question->body, &fields, false);
    return true;
}

static bool wishes_stream(const char *data, size_t length) {
    const char *end = data + length;
    while ((data = memmem(data, (size_t)(end - data), "\"stream\":", 9)) != NULL) {
        data += 9;
        const char *value = data < end && *data == ' ' ? data + 1 : data;
        if (end - value >= 4 && memcmp(value, "true", 4) == 0) return true;
    }
    return false;
}

/* Looks for the wish in a piece of the body, and across the border to the piece before. */
static void look_for_wish(struct question *question, const char *piece, size_t length) {
    if (question->wants_stream) return;
    size_t head = length < WISH_LENGTH ? length : WISH_LENGTH;
    if (question->tail_length > 0) {
        char border[2 * WISH_LENGTH];
        memcpy(border, question->tail, question->tail_length);
        memcpy(border + question->tail_length, piece, head);
        question->wants_stream = wishes_stream(border, question->tail_length + head);
    }
    question->wants_stream = question->wants_stream || wishes_stream(piece, length);
    size_t room = WISH_LENGTH - head, kept = room < question->tail_length ? room : question->tail_length;
    memmove(question->tail, question->tail + question->tail_length - kept, kept);
    memcpy(question->tail + kept, piece + length - head, head);
    question->tail_length = kept + head;
}

enum body_step question_read(struct question *question, const char **at, const char *end) {
    for (;;) {
        const char *piece;
        size_t length;
        enum body_step step = body_next(&question->body, at, end, &piece, &length);
        if (step != BODY_PIECE) return step;
        look_for_wish(question, piece, length);
    }
}
