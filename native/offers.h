// The table of pages and offers, and the thread that answers claims: what offers*.c share.
//
//     offers.c         what JavaScript calls
//     offers-table.c   pages, units, offers, receivers; seals and drops
//     offers-answer.c  one request of one connection
//     offers-thread.c  sockets, connections, deadlines
//
// All of the table is under one mutex, so a claim and a cancellation have one winner: whoever has
// the mutex first. The thread knows nothing of JavaScript; JavaScript hears from it by an eventfd.
#ifndef UKSHM_OFFERS_H
#define UKSHM_OFFERS_H

#include "addon.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/// Rights, as bits; the same as VMO_GRANT_* in src/offer/rights.ts.
#define RIGHT_R 1
#define RIGHT_W 2
#define RIGHT_X 4
#define RIGHTS_ALL 7

/// Limits of a process. SCM_RIGHTS carries 253 descriptors at most.
#define OFFERS_MAX 16384
#define RECEIVERS_MAX 1024
#define OFFER_UNITS_MAX 253

/// Why an offer ended; JavaScript knows these numbers (src/sys/offers.ts).
enum { ENDED_CLAIMED = 1, ENDED_CANCELLED = 2, ENDED_REPLACED = 3, ENDED_RECEIVER_GONE = 4 };

typedef struct desk desk;
typedef struct offer offer;
typedef struct pages pages;
typedef struct receiver receiver;

/// One memfd, mapped at its place in the range of its pages.
typedef struct {
  int fd;              // -1: given away
  uint8_t rights;      // what this process holds; 0: nothing any more
  uint8_t protection;  // of this process's mapping: PROT_*
  bool claimed;        // the last offer of this unit was claimed
  uint32_t lent;       // to the kernel: how often
  offer *offer;
} unit;

struct pages {
  pages *next;  // in the same bucket
  desk *desk;
  uintptr_t address;
  size_t unit_bytes;
  uint32_t unit_count;
  unit units[];
};

struct offer {
  offer *next;  // in the same bucket; once ended, in its desk's list
  pages *pages;
  desk *desk;
  receiver *receiver;
  uintptr_t address;
  uint64_t serial;
  uint32_t first;
  uint32_t count;
  uint8_t grant;
  uint8_t drop;
  uint8_t ended;  // 0: it stands
};

/// A process to which something is offered. Its pidfd holds the process apart from any later one
/// of the same number.
struct receiver {
  receiver *next;
  pid_t pid;
  int pidfd;
  uint32_t offer_count;
  uint64_t since;  // in ticks of the table
};

/// An environment (main thread or worker) that has pages.
struct desk {
  desk *next;
  napi_env env;
  int eventfd;    // -1 until it offers or watches
  bool watching;  // wants to know of offers to this process
  bool poked;
  offer *ended;   // oldest first
  offer **ended_end;
};

extern pthread_mutex_t offers_lock;

// offers-table.c; the caller holds the lock.
desk *desk_of(napi_env env, bool create);
void end_desk(desk *d);
bool any_desk(void);
int add_pages(desk *d, uintptr_t address, size_t unit_bytes, const int *fds, uint32_t count,
              int rights, int protection);
pages *find_pages(uintptr_t address);
int close_pages(pages *p, bool in_use);
int64_t add_offer(pages *p, uint32_t first, uint32_t count, pid_t pid, int grant, int drop);
offer *find_offer(uintptr_t address);
void end_offer(offer *o, int reason);
int seal_for(const offer *o);
int drop_for(offer *o);
void receiver_gone(pid_t pid);
void poked(void);
uint64_t next_tick(void);
bool is_alive(int pidfd);
/// Calls `see` for each offer that stands; for one receiver, or all (`pid` 0).
void each_offer(pid_t pid, void (*see)(const offer *o, void *data), void *data);
uint32_t offer_count(void);

// offers-thread.c
/// Starts the thread if it does not run; 0 or -errno.
int start_answering(void);
/// Ends the thread if no environment is left that could offer.
void stop_answering(void);
void watch_receiver(const receiver *r, bool yes);
/// Tells a process that there may be an offer for it; it may not care.
void poke(pid_t pid);

// offers-answer.c
typedef struct connection connection;
struct connection {
  connection *next;
  int fd;          // -1: closed, freed at the end of the round
  pid_t pid;       // as of connect(2)
  uid_t uid;
  int pidfd;       // of the peer; -1 where the kernel has no SO_PEERPIDFD
  int64_t deadline_ms;
  uint64_t nonce;  // of the last challenge; 0: none
  uint64_t challenged;  // when, in ticks of the table
  uint8_t *out;    // packets that the peer has not taken yet
  size_t out_bytes;
  size_t out_sent;
};
/// Reads one request and answers it. false: the connection is over.
bool answer_request(connection *c);
/// Sends what waits. false: the connection is over.
bool flush_answers(connection *c);
/// Whether peers are challenged although the kernel has SO_PEERPIDFD: for tests.
extern atomic_bool always_challenge;

#endif
