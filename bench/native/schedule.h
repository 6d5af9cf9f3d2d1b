/* Who is due next: a heap of the paced streams. */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

/* What can be due is a member of something larger. */
struct entry {
    uint64_t due;
    size_t place; /* in the heap, from 1; 0 when it is not there */
};

struct schedule {
    struct entry **entries; /* from 1 */
    size_t length, capacity;
};

void schedule_add(struct schedule *schedule, struct entry *entry);
void schedule_remove(struct schedule *schedule, struct entry *entry); /* nothing if it is not there */

#endif
