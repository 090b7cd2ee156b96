// Pages and offers as JavaScript calls them. Addresses name pages; numbers are checked there.
#include "offers.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_environment_end(void *data) {
  pthread_mutex_lock(&offers_lock);
  desk *d = desk_of(data, false);
  if (d != NULL) end_desk(d);
  pthread_mutex_unlock(&offers_lock);
  stop_answering();
}

/// This environment's desk, made at its first need; the lock is held.
static desk *own_desk(napi_env env) {
  desk *d = desk_of(env, false);
  if (d != NULL) return d;
  d = desk_of(env, true);
  if (d != NULL) napi_add_env_cleanup_hook(env, on_environment_end, env);
  return d;
}

/// offersOpen(): starts the answering thread if it does not run. An eventfd that is readable when
/// offersTake has something; it stays the addon's. Or -errno.
static napi_value call_open(napi_env env, napi_callback_info info) {
  (void)info;
  int result = -ENOMEM;
  pthread_mutex_lock(&offers_lock);
  desk *d = own_desk(env);
  if (d != NULL) {
    if (d->eventfd < 0) d->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    result = d->eventfd < 0 ? -errno : d->eventfd;
  }
  pthread_mutex_unlock(&offers_lock);
  // Its desk exists: no environment that ends now stops the thread.
  int started = result < 0 ? 0 : start_answering();
  return number(env, started < 0 ? started : result);
}

/// offersWatch(yes): whether offersTake reports that there may be an offer for this process.
static napi_value call_watch(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  bool yes = false;
  napi_get_value_bool(env, argument[0], &yes);
  pthread_mutex_lock(&offers_lock);
  desk *d = own_desk(env);
  if (d != NULL) {
    d->watching = yes;
    d->poked = false;
  }
  pthread_mutex_unlock(&offers_lock);
  return NULL;
}

/// offersTake(pairs: Float64Array): fills pairs of (serial, why it ended), oldest first, and (0, 0)
/// for a poke; how many. Fewer than fit: that was all, and the eventfd is quiet again.
static napi_value call_take(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  double *pairs = view(env, argument[0], &length_bytes);
  size_t capacity = length_bytes / (2 * sizeof(double));
  size_t count = 0;
  pthread_mutex_lock(&offers_lock);
  desk *d = desk_of(env, false);
  if (d != NULL && capacity > 0) {
    if (d->poked) {
      pairs[0] = pairs[1] = 0;
      count = 1;
    }
    d->poked = false;
    for (; d->ended != NULL && count < capacity; count++) {
      offer *o = d->ended;
      pairs[2 * count] = (double)o->serial;
      pairs[2 * count + 1] = o->ended;
      d->ended = o->next;
      if (d->ended == NULL) d->ended_end = &d->ended;
      free(o);
    }
    uint64_t rung;
    if (d->ended == NULL && d->eventfd >= 0) (void)!read(d->eventfd, &rung, sizeof rung);
  }
  pthread_mutex_unlock(&offers_lock);
  return number(env, (double)count);
}

/// pagesAdd(address, unit bytes, fds: Int32Array, rights, protection): the descriptors are the
/// table's from now on. 0 or -errno.
static napi_value call_pages_add(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t fds_bytes;
  const int *fds = view(env, argument[2], &fds_bytes);
  uint32_t count = (uint32_t)(fds_bytes / sizeof(int));
  pthread_mutex_lock(&offers_lock);
  desk *d = own_desk(env);
  int result = d == NULL ? -ENOMEM
                         : add_pages(d, (uintptr_t)integer(env, argument[0]),
                                     (size_t)integer(env, argument[1]), fds, count,
                                     (int)integer(env, argument[3]),
                                     (int)integer(env, argument[4]));
  pthread_mutex_unlock(&offers_lock);
  for (uint32_t i = 0; result == 0 && i < count; i++) disown_descriptor(env, fds[i]);
  return number(env, result);
}

/// pagesClose(address): ends their offers, closes the descriptors, puts zeros in their place.
/// 0, -EBUSY (lent), -ENOENT.
static napi_value call_pages_close(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  int result = p == NULL ? -ENOENT : close_pages(p, true);
  pthread_mutex_unlock(&offers_lock);
  return number(env, result);
}

/// pagesRights(address, first, count): what is held of all these units; -ENOENT.
static napi_value call_pages_rights(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int64_t first = integer(env, argument[1]);
  int64_t count = integer(env, argument[2]);
  int result = -ENOENT;
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  if (p != NULL) {
    result = RIGHTS_ALL;
    for (int64_t i = first; i < first + count && i < p->unit_count; i++) {
      result &= p->units[i].rights;
    }
  }
  pthread_mutex_unlock(&offers_lock);
  return number(env, result);
}

/// pagesHeld(address): how many units are still this process's; -ENOENT.
static napi_value call_pages_held(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int64_t result = -ENOENT;
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  if (p != NULL) {
    result = 0;
    for (uint32_t i = 0; i < p->unit_count; i++) result += p->units[i].rights != 0;
  }
  pthread_mutex_unlock(&offers_lock);
  return number(env, (double)result);
}

/// pagesLend(address, first, count, by): +1 or -1; what is lent cannot be claimed.
/// 0, -ENOENT, -EIDRM (given away).
static napi_value call_pages_lend(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int64_t first = integer(env, argument[1]);
  int64_t end = first + integer(env, argument[2]);
  int64_t by = integer(env, argument[3]);
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  int result = p == NULL ? -ENOENT : 0;
  for (int64_t i = first; result == 0 && i < end && i < p->unit_count; i++) {
    if (by > 0 && p->units[i].rights == 0) result = -EIDRM;
  }
  for (int64_t i = first; result == 0 && i < end && i < p->unit_count; i++) {
    p->units[i].lent = (uint32_t)((int64_t)p->units[i].lent + by);
  }
  pthread_mutex_unlock(&offers_lock);
  return number(env, result);
}

/// offerAdd(address of the pages, first, count, pid, grant, drop): a serial, or -errno as in
/// offers-table.c; -ENOENT for pages that are closed.
static napi_value call_offer_add(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  pid_t pid = (pid_t)integer(env, argument[3]);
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  int64_t result = p == NULL ? -ENOENT
                             : add_offer(p, (uint32_t)integer(env, argument[1]),
                                         (uint32_t)integer(env, argument[2]), pid,
                                         (int)integer(env, argument[4]),
                                         (int)integer(env, argument[5]));
  pthread_mutex_unlock(&offers_lock);
  if (result > 0) poke(pid);
  return number(env, (double)result);
}

/// offerCancel(address, serial, pid): the offer that stands at this address, if it is this one
/// (serial 0: whichever), to this process (pid 0: whichever). 0, -ENOENT.
static napi_value call_offer_cancel(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  uintptr_t address = (uintptr_t)integer(env, argument[0]);
  uint64_t serial = (uint64_t)integer(env, argument[1]);
  pid_t pid = (pid_t)integer(env, argument[2]);
  int result = -ENOENT;
  pthread_mutex_lock(&offers_lock);
  offer *o = find_offer(address);
  if (o != NULL && (serial == 0 || o->serial == serial) && (pid == 0 || o->receiver->pid == pid)) {
    end_offer(o, ENDED_CANCELLED);
    result = 0;
  }
  pthread_mutex_unlock(&offers_lock);
  return number(env, result);
}

/// pagesClaimed(address, unit): whether the unit's last offer was claimed.
static napi_value call_pages_claimed(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int64_t index = integer(env, argument[1]);
  bool claimed = false;
  pthread_mutex_lock(&offers_lock);
  pages *p = find_pages((uintptr_t)integer(env, argument[0]));
  if (p != NULL && index >= 0 && index < p->unit_count) claimed = p->units[index].claimed;
  pthread_mutex_unlock(&offers_lock);
  napi_value result = NULL;
  napi_get_boolean(env, claimed, &result);
  return result;
}

typedef struct {
  double *out;
  size_t capacity;
  size_t count;
} snapshot;

static void see(const offer *o, void *data) {
  snapshot *s = data;
  if (++s->count > s->capacity) return;
  double *out = s->out + 6 * (s->count - 1);
  out[0] = (double)o->address;
  out[1] = (double)(o->count * (uint64_t)o->pages->unit_bytes);
  out[2] = (double)o->serial;
  out[3] = o->receiver->pid;
  out[4] = o->grant;
  out[5] = o->drop;
}

/// offersList(out: Float64Array): address, size, serial, pid, grant and drop of each offer of this
/// process that stands; how many there are, which may be more than fit.
static napi_value call_list(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  snapshot s = {.out = view(env, argument[0], &length_bytes)};
  s.capacity = length_bytes / (6 * sizeof(double));
  pthread_mutex_lock(&offers_lock);
  each_offer(0, see, &s);
  pthread_mutex_unlock(&offers_lock);
  return number(env, (double)s.count);
}

/// offersChallenge(yes): ask for credentials again, as on a kernel without SO_PEERPIDFD; for tests.
static napi_value call_challenge(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  bool yes = false;
  napi_get_value_bool(env, argument[0], &yes);
  atomic_store(&always_challenge, yes);
  return NULL;
}

const export_entry offers_exports[] = {
    {"offersOpen", call_open},
    {"offersWatch", call_watch},
    {"offersTake", call_take},
    {"offersList", call_list},
    {"offersChallenge", call_challenge},
    {"pagesAdd", call_pages_add},
    {"pagesClose", call_pages_close},
    {"pagesRights", call_pages_rights},
    {"pagesHeld", call_pages_held},
    {"pagesLend", call_pages_lend},
    {"pagesClaimed", call_pages_claimed},
    {"offerAdd", call_offer_add},
    {"offerCancel", call_offer_cancel},
    {NULL, NULL},
};
