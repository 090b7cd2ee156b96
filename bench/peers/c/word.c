/* The limit of any round trip: one word each way, each on its own pair of cache lines, both
 * sides spinning. No ring, no payload. */
#include "shm.h"
#include <stdatomic.h>

struct words {
  _Alignas(128) _Atomic uint32_t there;
  _Alignas(128) _Atomic uint32_t back;
};

struct pinger {
  struct words *words;
  uint32_t sequence;
};

static void trip(void *context) {
  struct pinger *p = context;
  uint32_t next = ++p->sequence;
  atomic_store_explicit(&p->words->there, next, memory_order_release);
  while (atomic_load_explicit(&p->words->back, memory_order_acquire) != next) {
  }
}

int main(int argc, char **argv) {
  struct job job = parse_job(argc, argv);
  struct words *words = share(&job, sizeof *words);
  if (!job.listens) {
    struct pinger pinger = {words, 0};
    measure_trips(&job, trip, &pinger);
    atomic_store_explicit(&words->there, END_WORD, memory_order_release);
    return 0;
  }
  for (uint32_t seen = 0; seen != END_WORD;) {
    uint32_t word = atomic_load_explicit(&words->there, memory_order_acquire);
    if (word == seen) continue;
    atomic_store_explicit(&words->back, word, memory_order_release);
    seen = word;
  }
  return 0;
}
