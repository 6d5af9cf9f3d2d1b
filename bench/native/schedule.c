#include "schedule.h"

#include <stdlib.h>

#include "common.h"

static void put(struct schedule *schedule, size_t place, struct entry *entry) {
    schedule->entries[place] = entry;
    entry->place = place;
}

static void rise(struct schedule *schedule, size_t place, struct entry *entry) {
    while (place > 1 && schedule->entries[place / 2]->due > entry->due) {
        put(schedule, place, schedule->entries[place / 2]);
        place /= 2;
    }
    put(schedule, place, entry);
}

static void sink(struct schedule *schedule, size_t place, struct entry *entry) {
    for (;;) {
        size_t child = 2 * place;
        if (child > schedule->length) break;
        if (child < schedule->length && schedule->entries[child + 1]->due < schedule->entries[child]->due) child++;
        if (schedule->entries[child]->due >= entry->due) break;
        put(schedule, place, schedule->entries[child]);
        place = child;
    }
    put(schedule, place, entry);
}

void schedule_add(struct schedule *schedule, struct entry *entry) {
    if (++schedule->length >= schedule->capacity) {
        schedule->capacity = schedule->capacity > 0 ? 2 * schedule->capacity : 1024;
        schedule->entries = realloc(schedule->entries, schedule->capacity * sizeof(struct entry *));
        if (schedule->entries == NULL) die(1, "out of memory");
    }
    rise(schedule, schedule->length, entry);
}

void schedule_remove(struct schedule *schedule, struct entry *entry) {
    size_t place = entry->place;
    if (place == 0) return;
    struct entry *last = schedule->entries[schedule->length--];
    entry->place = 0;
    if (last == entry) return;
    if (place > 1 && schedule->entries[place / 2]->due > last->due) rise(schedule, place, last);
    else sink(schedule, place, last);
}
