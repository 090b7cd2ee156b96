/* The rings of ukshm in C, without its checks, its sleep protocol and its handshake: the limit of
 * everything but a bare word.
 *
 * One outbox a side:
 *
 *     0        128      256        4096       4096 + RING
 *     | -      | tail   | head     | records  | arena: slots of a large message each
 *                         of what the peer sent
 *
 * A record is 8 bytes of header (u16 length, u16 type, u32 number) and the payload, padded to 8;
 * one that would cross the end is preceded by padding. A large message is written into a slot of
 * the arena and travels as a record that holds the slot's number. */
#include "shm.h"
#include <stdatomic.h>

#define RING 262144u
#define MASK (RING - 1)
#define RECORDS_OFFSET 4096u
#define INLINE_MAX 8192u
#define IN_FLIGHT (2u << 20)
#define TYPE_PADDING 0xffffu
#define BATCH 16u

struct header {
  uint16_t length;
  uint16_t type;
  uint32_t number;
};

struct outbox {
  _Alignas(128) uint8_t unused[128];
  _Alignas(128) _Atomic uint32_t tail;
  _Alignas(128) _Atomic uint32_t head;
};

struct side {
  struct outbox *mine, *theirs;
  uint8_t *ring, *peer_ring;
  uint32_t tail, head_seen;      /* what I send */
  uint32_t head, head_published; /* what I read */
  size_t size, slot_bytes;
  uint32_t slots, lent_next;
  uint8_t *source, *copy;
};

static uint32_t slots_for(size_t size) {
  if (size <= INLINE_MAX) return 0;
  return size >= IN_FLIGHT / 2 ? 2 : (uint32_t)(IN_FLIGHT / size);
}

static struct side open_side(const struct job *job) {
  struct side s = {.size = job->size, .slot_bytes = (job->size + 4095) & ~(size_t)4095};
  s.slots = slots_for(job->size);
  size_t outbox_bytes = RECORDS_OFFSET + RING + s.slots * s.slot_bytes;
  uint8_t *base = share(job, 2 * outbox_bytes);
  s.mine = (struct outbox *)(base + (job->listens ? 0 : outbox_bytes));
  s.theirs = (struct outbox *)(base + (job->listens ? outbox_bytes : 0));
  s.ring = (uint8_t *)s.mine + RECORDS_OFFSET;
  s.peer_ring = (uint8_t *)s.theirs + RECORDS_OFFSET;
  s.source = new_payload(job->size);
  s.copy = new_payload(job->size);
  return s;
}

static inline void publish(struct side *s) {
  atomic_store_explicit(&s->mine->tail, s->tail, memory_order_release);
}

static inline void release(struct side *s) {
  s->head_published = s->head;
  atomic_store_explicit(&s->mine->head, s->head, memory_order_release);
}

static inline void wait_for_space(struct side *s, uint32_t bytes) {
  while (s->tail - s->head_seen + bytes > RING) {
    publish(s);
    s->head_seen = atomic_load_explicit(&s->theirs->head, memory_order_acquire);
  }
}

static inline uint8_t *reserve(struct side *s, uint32_t length) {
  uint32_t need = 8 + ((length + 7) & ~7u), to_end = RING - (s->tail & MASK);
  if (need > to_end) {
    wait_for_space(s, to_end);
    *(struct header *)(s->ring + (s->tail & MASK)) =
        (struct header){(uint16_t)(to_end / 8), TYPE_PADDING, 0};
    s->tail += to_end;
  }
  wait_for_space(s, need);
  uint8_t *at = s->ring + (s->tail & MASK);
  *(struct header *)at = (struct header){(uint16_t)length, 1, 0};
  s->tail += need;
  return at + 8;
}

/* A slot is free when its record, 16 bytes of the ring like all others then, was released. */
static inline void send_large(struct side *s) {
  while ((s->tail - s->head_seen) / 16 >= s->slots)
    s->head_seen = atomic_load_explicit(&s->theirs->head, memory_order_acquire);
  uint32_t slot = s->lent_next++ % s->slots;
  memcpy(s->ring + RING + slot * s->slot_bytes, s->source, s->size);
  *(uint32_t *)reserve(s, 8) = slot;
  publish(s);
}

static inline void send(struct side *s, uint32_t word) {
  stamp(s->source, s->size, word);
  if (s->slots != 0) {
    send_large(s);
  } else {
    memcpy(reserve(s, (uint32_t)s->size), s->source, s->size);
  }
}

/* Copies the record at the head out; 0 for padding. */
static inline int read_record(struct side *s, uint32_t *word) {
  uint8_t *at = s->peer_ring + (s->head & MASK);
  struct header header = *(struct header *)at;
  if (header.type == TYPE_PADDING) {
    s->head += header.length * 8u;
    return 0;
  }
  const uint8_t *payload = at + 8;
  if (s->slots != 0) payload = s->peer_ring + RING + *(const uint32_t *)payload * s->slot_bytes;
  memcpy(s->copy, payload, s->size);
  keep(s->copy);
  *word = stamp_of(s->copy, s->size);
  s->head += 8 + ((header.length + 7u) & ~7u);
  if (s->slots != 0 || s->head - s->head_published >= RING / 4) release(s);
  return 1;
}

static inline uint32_t receive_one(struct side *s) {
  uint32_t word = 0;
  for (;;) {
    uint32_t tail = atomic_load_explicit(&s->theirs->tail, memory_order_acquire);
    while (s->head != tail) {
      int got = read_record(s, &word);
      if (got) {
        if (s->head_published != s->head) release(s);
        return word;
      }
    }
  }
}

static void trip(void *context) {
  struct side *s = context;
  send(s, s->lent_next + 1);
  publish(s);
  receive_one(s);
}

static void echo(struct side *s) {
  for (;;) {
    uint32_t word = receive_one(s);
    if (word == END_WORD) return;
    send(s, word);
    publish(s);
  }
}

static uint32_t send_phase(struct side *s, double seconds, uint32_t batch) {
  uint32_t sequence = 0, interval = clock_interval(s->size);
  uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
  do {
    for (uint32_t i = 0; i < interval; i += batch) {
      for (uint32_t j = 0; j < batch; j++) send(s, sequence++);
      publish(s);
    }
  } while (sequence < MESSAGES_MIN || now_ns() < until);
  send(s, END_WORD);
  publish(s);
  receive_one(s);
  return sequence;
}

/* Reads until the end of one phase, then answers. */
static void receive_phase(struct side *s) {
  for (uint32_t expected = 0;;) {
    uint32_t tail = atomic_load_explicit(&s->theirs->tail, memory_order_acquire);
    if (tail == s->head) continue;
    while (s->head != tail) {
      uint32_t word;
      if (!read_record(s, &word)) continue;
      if (word == expected) {
        expected++;
        continue;
      }
      release(s);
      if (word != END_WORD) wrong(expected, word);
      send(s, word);
      publish(s);
      return;
    }
    release(s);
  }
}

int main(int argc, char **argv) {
  struct job job = parse_job(argc, argv);
  struct side side = open_side(&job);
  int trips = strncmp(job.name, "round-trip", 10) == 0;
  if (job.listens && trips) echo(&side);
  else if (job.listens) receive_phase(&side), receive_phase(&side);
  else if (trips) {
    measure_trips(&job, trip, &side);
    send(&side, END_WORD);
    publish(&side);
  } else {
    uint32_t batch = job.size <= INLINE_MAX && strcmp(job.name, "one-way-batched") == 0 ? BATCH : 1;
    send_phase(&side, job.warm_seconds, batch);
    uint64_t start = now_ns();
    uint32_t sent = send_phase(&side, job.run_seconds, batch);
    print_rate(sent, now_ns() - start);
  }
  return 0;
}
