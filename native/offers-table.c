// Pages, units, offers and the processes they are offered to; seals and drops.
//
// Lists hang from fixed arrays of buckets, by address. An address is a key as long as its range is
// reserved: memory.c calls forget_pages before it unmaps one, whoever caused that.
#include "offers.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#define BUCKETS 4096

pthread_mutex_t offers_lock = PTHREAD_MUTEX_INITIALIZER;
static pages *pages_in[BUCKETS];
static offer *offers_in[BUCKETS];
static desk *desks;
static receiver *receivers;
static uint32_t receiver_count;
static uint32_t standing;
static uint64_t last_serial;
static uint64_t ticks;

static size_t bucket_of(uintptr_t address) {
  return (size_t)(((uint64_t)address >> 12) * 0x9e3779b97f4a7c15ULL >> 52) % BUCKETS;
}

uint64_t next_tick(void) { return ++ticks; }
uint32_t offer_count(void) { return standing; }
bool any_desk(void) { return desks != NULL; }

desk *desk_of(napi_env env, bool create) {
  for (desk *d = desks; d != NULL; d = d->next) {
    if (d->env == env) return d;
  }
  desk *d = create ? calloc(1, sizeof *d) : NULL;
  if (d == NULL) return NULL;
  d->env = env;
  d->eventfd = -1;
  d->ended_end = &d->ended;
  d->next = desks;
  desks = d;
  return d;
}

static void ring(const desk *d) {
  const uint64_t one = 1;
  if (d->eventfd < 0) return;
  ssize_t ignored = write(d->eventfd, &one, sizeof one);
  (void)ignored;
}

void poked(void) {
  for (desk *d = desks; d != NULL; d = d->next) {
    if (!d->watching || d->poked) continue;
    d->poked = true;
    ring(d);
  }
}

/// The environment is over: its offers end, its descriptors are closed, its memory is not touched.
void end_desk(desk *d) {
  for (size_t i = 0; i < BUCKETS; i++) {
    for (pages *p = pages_in[i], *next; p != NULL; p = next) {
      next = p->next;
      if (p->desk == d) close_pages(p, false);
    }
  }
  for (offer *o = d->ended, *next; o != NULL; o = next) {
    next = o->next;
    free(o);
  }
  for (desk **at = &desks; *at != NULL; at = &(*at)->next) {
    if (*at != d) continue;
    *at = d->next;
    break;
  }
  if (d->eventfd >= 0) close(d->eventfd);
  free(d);
}

int add_pages(desk *d, uintptr_t address, size_t unit_bytes, const int *fds, uint32_t count,
              int rights, int protection) {
  pages *p = calloc(1, sizeof *p + count * sizeof(unit));
  if (p == NULL) return -ENOMEM;
  p->desk = d;
  p->address = address;
  p->unit_bytes = unit_bytes;
  p->unit_count = count;
  for (uint32_t i = 0; i < count; i++) {
    p->units[i] = (unit){.fd = fds[i], .rights = (uint8_t)rights,
                         .protection = (uint8_t)protection};
  }
  pages **bucket = &pages_in[bucket_of(address)];
  p->next = *bucket;
  *bucket = p;
  return 0;
}

pages *find_pages(uintptr_t address) {
  pages *p = pages_in[bucket_of(address)];
  while (p != NULL && p->address != address) p = p->next;
  return p;
}

/// Zeros in place of a mapping, at once. Where the kernel counts private memory strictly and has
/// none left, they are read-only.
static int put_zeros(uintptr_t address, size_t length_bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  void *at = (void *)address;
  if (mmap(at, length_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED) return 0;
  return mmap(at, length_bytes, PROT_READ, flags, -1, 0) != MAP_FAILED ? 0 : -errno;
}

/// Closes the descriptors and forgets the pages; `in_use`: zeros take the place of the memory.
int close_pages(pages *p, bool in_use) {
  for (uint32_t i = 0; in_use && i < p->unit_count; i++) {
    if (p->units[i].lent > 0) return -EBUSY;
  }
  for (uint32_t i = 0; i < p->unit_count; i++) {
    if (p->units[i].offer != NULL) end_offer(p->units[i].offer, ENDED_CANCELLED);
    if (p->units[i].fd >= 0) close(p->units[i].fd);
  }
  int result = in_use ? put_zeros(p->address, p->unit_bytes * p->unit_count) : 0;
  for (pages **at = &pages_in[bucket_of(p->address)]; *at != NULL; at = &(*at)->next) {
    if (*at != p) continue;
    *at = p->next;
    break;
  }
  free(p);
  return result;
}

void forget_pages(uintptr_t address) {
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages(address);
  if (p != NULL) close_pages(p, false);
  pthread_mutex_unlock(&offers_lock);
}

/// Whether the process has not ended.
bool is_alive(int pidfd) {
  struct pollfd look = {.fd = pidfd, .events = POLLIN};
  return pidfd >= 0 && poll(&look, 1, 0) == 0;
}

static void release_receiver(receiver *r) {
  if (--r->offer_count > 0) return;
  for (receiver **at = &receivers; *at != NULL; at = &(*at)->next) {
    if (*at != r) continue;
    *at = r->next;
    break;
  }
  watch_receiver(r, false);
  close(r->pidfd);
  free(r);
  receiver_count--;
}

/// The process of this number, now; `offer_count` is the caller's to raise. -errno in `*error`.
static receiver *receiver_of(pid_t pid, int *error) {
  for (receiver *r = receivers; r != NULL; r = r->next) {
    if (r->pid != pid) continue;
    if (is_alive(r->pidfd)) return r;
    // Its offers are about to end; those of a new process of this number must not be among them.
    receiver_gone(pid);
    break;
  }
  *error = -EMFILE;
  if (receiver_count >= RECEIVERS_MAX) return NULL;
  int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  *error = pidfd < 0 ? -errno : -ESRCH;
  receiver *r = is_alive(pidfd) ? calloc(1, sizeof *r) : NULL;
  if (r == NULL) {
    if (pidfd >= 0) close(pidfd);
    return NULL;
  }
  *r = (receiver){.next = receivers, .pid = pid, .pidfd = pidfd, .since = next_tick()};
  receivers = r;
  receiver_count++;
  watch_receiver(r, true);
  return r;
}

void receiver_gone(pid_t pid) {
  for (size_t i = 0; i < BUCKETS; i++) {
    for (offer *o = offers_in[i], *next; o != NULL; o = next) {
      next = o->next;
      if (o->receiver->pid == pid) end_offer(o, ENDED_RECEIVER_GONE);
    }
  }
}

/// Whether nobody can be given write access to this unit any more: a seal is never taken back.
static bool is_sealed(const unit *u) {
  long seals = syscall(SYS_fcntl, u->fd, F_GET_SEALS, 0L);
  return seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0;
}

/// Whether these units may be offered so: 0, or -errno.
static int check_run(const pages *p, uint32_t first, uint32_t count, int grant) {
  for (uint32_t i = first; i < first + count; i++) {
    const unit *u = &p->units[i];
    if (u->rights == 0) return -EIDRM;
    if ((u->rights & grant) != grant) return -EACCES;
    if ((grant & RIGHT_W) && is_sealed(u)) return -EROFS;
    if (u->offer != NULL && u->offer->first != first) return -EEXIST;
  }
  return 0;
}

/// An offer of whole units. Its serial, or -EIDRM (given away), -EACCES (more than is held),
/// -EROFS (sealed against writing), -EEXIST (overlaps another), -ENOSPC (too many), -ESRCH (no such process).
int64_t add_offer(pages *p, uint32_t first, uint32_t count, pid_t pid, int grant, int drop) {
  int error = check_run(p, first, count, grant);
  if (error != 0) return error;
  offer *old = p->units[first].offer;
  if (old == NULL && standing >= OFFERS_MAX) return -ENOSPC;
  offer *o = calloc(1, sizeof *o);
  if (o == NULL) return -ENOMEM;
  receiver *r = receiver_of(pid, &error);
  if (r == NULL) {
    free(o);
    return error;
  }
  r->offer_count++;
  // Asked again: the process found dead above may have been the old offer's.
  if (p->units[first].offer != NULL) end_offer(p->units[first].offer, ENDED_REPLACED);
  *o = (offer){.pages = p, .desk = p->desk, .receiver = r, .serial = ++last_serial,
               .address = p->address + first * p->unit_bytes, .first = first, .count = count,
               .grant = (uint8_t)grant, .drop = (uint8_t)drop};
  for (uint32_t i = first; i < first + count; i++) {
    p->units[i].offer = o;
    p->units[i].claimed = false;
  }
  offer **bucket = &offers_in[bucket_of(o->address)];
  o->next = *bucket;
  *bucket = o;
  standing++;
  return (int64_t)o->serial;
}

offer *find_offer(uintptr_t address) {
  offer *o = offers_in[bucket_of(address)];
  while (o != NULL && o->address != address) o = o->next;
  return o;
}

/// Takes the offer out of the table and tells its environment.
void end_offer(offer *o, int reason) {
  for (offer **at = &offers_in[bucket_of(o->address)]; *at != NULL; at = &(*at)->next) {
    if (*at != o) continue;
    *at = o->next;
    break;
  }
  for (uint32_t i = o->first; i < o->first + o->count; i++) {
    o->pages->units[i].offer = NULL;
    o->pages->units[i].claimed = reason == ENDED_CLAIMED;
  }
  standing--;
  release_receiver(o->receiver);
  o->receiver = NULL;
  o->pages = NULL;
  o->ended = (uint8_t)reason;
  o->next = NULL;
  *o->desk->ended_end = o;
  o->desk->ended_end = &o->next;
  ring(o->desk);
}

/// What is granted without W can never be had with it: sealed before it is passed. What is granted
/// with W must not have been sealed meanwhile, by another who has it.
int seal_for(const offer *o) {
  for (uint32_t i = o->first; i < o->first + o->count; i++) {
    const unit *u = &o->pages->units[i];
    if (o->grant & RIGHT_W) {
      if (is_sealed(u)) return -EROFS;
    } else if (!is_sealed(u)) {
      if (syscall(SYS_fcntl, u->fd, F_ADD_SEALS, (long)F_SEAL_FUTURE_WRITE) != 0) return -errno;
    }
  }
  return 0;
}

/// Gives up what the offer says. Memory given up entirely reads as zeros; without W it is a
/// private copy, so that what is written there stays here.
int drop_for(offer *o) {
  pages *p = o->pages;
  int result = 0;
  if (o->drop & RIGHT_R) result = put_zeros(o->address, o->count * p->unit_bytes);
  for (uint32_t i = o->first; i < o->first + o->count; i++) {
    unit *u = &p->units[i];
    void *at = (void *)(p->address + i * p->unit_bytes);
    int dropped = o->drop & u->rights;
    u->rights &= (uint8_t)~o->drop;
    if (o->drop & RIGHT_R) {
      u->rights = 0;
      close(u->fd);
      u->fd = -1;
      continue;
    }
    if (dropped & RIGHT_X) u->protection &= (uint8_t)~PROT_EXEC;
    if (dropped & RIGHT_W) {
      int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;
      if (mmap(at, p->unit_bytes, u->protection, flags, u->fd, 0) == MAP_FAILED) result = -errno;
    } else if (dropped & RIGHT_X) {
      if (mprotect(at, p->unit_bytes, u->protection) != 0) result = -errno;
    }
  }
  return result;
}

void each_offer(pid_t pid, void (*see)(const offer *o, void *data), void *data) {
  for (size_t i = 0; i < BUCKETS; i++) {
    for (const offer *o = offers_in[i]; o != NULL; o = o->next) {
      if (pid == 0 || o->receiver->pid == pid) see(o, data);
    }
  }
}
