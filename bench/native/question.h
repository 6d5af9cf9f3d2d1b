/* A request that the model server reads in pieces. */
#ifndef QUESTION_H
#define QUESTION_H

#include "common.h"

#define WISH_LENGTH 14 /* of "stream": true */

struct question {
    enum { GET, POST, PUT, OTHER } method;
    char path[64]; /* the beginning of it */
    bool close, wants_stream, expects_continue;
    struct body body;
    char tail[WISH_LENGTH]; /* of the body so far: the wish for a stream may be split */
    size_t tail_length;
};

/* Reads a whole head; false if it is not HTTP/1. */
bool question_begin(struct question *question, const char *head, size_t length);

/* Reads what there is of the body, whose pieces are not kept: BODY_MORE, BODY_END or BODY_MALFORMED. */
enum body_step question_read(struct question *question, const char **at, const char *end);

#endif
