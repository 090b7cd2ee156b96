// Answers a request of another process: a claim, or the question what is offered to it.
//
// All packets are of fixed form, in the machine's byte order (docs/FORMAT.md, Offers):
//
//     request   | magic | kind | address  | nonce   |
//               0       4      8          16        24
//     answer    | magic | status | address | unit size | units | grant | serial or nonce |
//               0       4        8         16          24      28      32                40
//     entry     | address | size | serial | pid | grant, drop |     after the answer to a LIST
//               0         8      16       24    28            32
//
// A claim: GRANT carries the descriptors; then the source drops what it drops; then DONE says so.
// If GRANT cannot be sent, nothing has happened and the offer stands.
#include "offers.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0x464f4b55  // "UKOF"
#define ENTRIES_PER_PACKET 128
/// What one peer may leave unread, in bytes, before its connection is over.
#define OUT_BYTES_MAX (2 * OFFERS_MAX * 32)

enum { KIND_CLAIM = 1, KIND_LIST = 2, KIND_LIST_ALL = 3 };
enum { GRANT = 1, DONE = 2, NOT_OFFERED = 3, LENT = 4, CHALLENGE = 5, LISTED = 6, FAILED = 7 };

typedef struct {
  uint32_t magic;
  uint32_t kind;
  uint64_t address;
  uint64_t nonce;
} request;

typedef struct {
  uint32_t magic;
  uint32_t status;
  uint64_t address;
  uint64_t unit_bytes;
  uint32_t unit_count;  // LISTED: entries in this packet
  uint32_t grant;       // LISTED: 1 in the last packet
  uint64_t serial;      // CHALLENGE: the nonce; FAILED: the errno
} packet;

typedef struct {
  uint64_t address;
  uint64_t size_bytes;
  uint64_t serial;
  uint32_t pid;
  uint16_t grant;
  uint16_t drop;
} entry;

atomic_bool always_challenge;

/// Queues one packet behind its length; `flush_answers` sends it.
static bool queue_packet(connection *c, const void *bytes, uint32_t length_bytes) {
  size_t total = c->out_bytes + sizeof length_bytes + length_bytes;
  if (total > OUT_BYTES_MAX) return false;
  uint8_t *out = realloc(c->out, total);
  if (out == NULL) return false;
  memcpy(out + c->out_bytes, &length_bytes, sizeof length_bytes);
  memcpy(out + c->out_bytes + sizeof length_bytes, bytes, length_bytes);
  c->out = out;
  c->out_bytes = total;
  return true;
}

bool flush_answers(connection *c) {
  while (c->out_sent < c->out_bytes) {
    uint32_t length_bytes;
    memcpy(&length_bytes, c->out + c->out_sent, sizeof length_bytes);
    const uint8_t *bytes = c->out + c->out_sent + sizeof length_bytes;
    if (send(c->fd, bytes, length_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
      return errno == EAGAIN || errno == EINTR;
    c->out_sent += sizeof length_bytes + length_bytes;
  }
  free(c->out);
  c->out = NULL;
  c->out_bytes = c->out_sent = 0;
  return true;
}

static bool say(connection *c, uint32_t status, uint64_t address, uint64_t detail) {
  packet p = {.magic = MAGIC, .status = status, .address = address, .serial = detail};
  return queue_packet(c, &p, sizeof p);
}

static bool send_grant(const connection *c, const offer *o) {
  packet p = {.magic = MAGIC, .status = GRANT, .address = o->address, .serial = o->serial,
              .unit_bytes = o->pages->unit_bytes, .unit_count = o->count, .grant = o->grant};
  union {
    char bytes[CMSG_SPACE(OFFER_UNITS_MAX * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  struct iovec vector = {&p, sizeof p};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = CMSG_SPACE(o->count * sizeof(int))};
  memset(control.bytes, 0, message.msg_controllen);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(o->count * sizeof(int));
  for (uint32_t i = 0; i < o->count; i++) {
    memcpy(CMSG_DATA(header) + i * sizeof(int), &o->pages->units[o->first + i].fd, sizeof(int));
  }
  return sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof p;
}

/// Whether the process that asks is this receiver, and not another that has, or had, its number.
/// With SO_PEERPIDFD: both are alive at this moment, so their number is that of one process. Without:
/// the request came with the number of who sent it, after a challenge that is younger than the
/// receiver's pidfd, whose process has not ended since.
static bool is_receiver(const connection *c, const receiver *r, pid_t sender) {
  if (sender == 0) return c->pid == r->pid && is_alive(c->pidfd) && is_alive(r->pidfd);
  return sender == r->pid && c->challenged > r->since && is_alive(r->pidfd);
}

/// Whether the peer still waits: what is sealed for one that went away would stay sealed.
static bool waits(const connection *c) {
  struct pollfd look = {.fd = c->fd};
  return poll(&look, 1, 0) == 0;
}

static bool is_lent(const offer *o) {
  for (uint32_t i = o->first; i < o->first + o->count; i++) {
    if (o->pages->units[i].lent > 0) return true;
  }
  return false;
}

static bool answer_claim(connection *c, uintptr_t address, pid_t sender) {
  bool alive;
  pthread_mutex_lock(&offers_lock);
  offer *o = find_offer(address);
  if (o == NULL || !is_receiver(c, o->receiver, sender)) {
    alive = say(c, NOT_OFFERED, address, 0);
  } else if (is_lent(o)) {
    alive = say(c, LENT, address, 0);
  } else if (!waits(c)) {
    alive = false;
  } else {
    int error = seal_for(o);
    if (error != 0) {
      alive = say(c, FAILED, address, (uint64_t)-error);
    } else if (!send_grant(c, o)) {
      alive = say(c, FAILED, address, (uint64_t)errno);
    } else {
      error = drop_for(o);
      alive = say(c, error == 0 ? DONE : FAILED, address, (uint64_t)-error);
      end_offer(o, ENDED_CLAIMED);
    }
  }
  pthread_mutex_unlock(&offers_lock);
  return alive;
}

typedef struct {
  const connection *connection;
  pid_t sender;
  bool all;
  const receiver *asker;  // once it is known that it asks
  entry *entries;
  uint32_t count;
} listing;

static void list_one(const offer *o, void *data) {
  listing *l = data;
  if (!l->all && o->receiver != l->asker) {
    if (!is_receiver(l->connection, o->receiver, l->sender)) return;
    l->asker = o->receiver;
  }
  l->entries[l->count++] = (entry){.address = o->address, .serial = o->serial,
                                   .size_bytes = o->count * (uint64_t)o->pages->unit_bytes,
                                   .pid = (uint32_t)o->receiver->pid,
                                   .grant = o->grant, .drop = o->drop};
}

/// What is offered to the asker; to the same user and to root, who ask for all, everything.
static bool answer_list(connection *c, bool all, pid_t sender) {
  listing l = {.connection = c, .sender = sender};
  l.all = all && (c->uid == geteuid() || c->uid == 0);
  pthread_mutex_lock(&offers_lock);
  l.entries = calloc(offer_count() + 1, sizeof(entry));
  if (l.entries != NULL) {
    each_offer(l.all ? 0 : (sender != 0 ? sender : c->pid), list_one, &l);
  }
  pthread_mutex_unlock(&offers_lock);
  bool alive = l.entries != NULL;
  uint32_t sent = 0;
  do {
    struct {
      packet head;
      entry entries[ENTRIES_PER_PACKET];
    } out = {.head = {.magic = MAGIC, .status = LISTED}};
    uint32_t count = l.count - sent;
    if (count > ENTRIES_PER_PACKET) count = ENTRIES_PER_PACKET;
    if (count > 0) memcpy(out.entries, l.entries + sent, count * sizeof(entry));
    sent += count;
    out.head.unit_count = count;
    out.head.grant = sent == l.count;
    alive = alive && queue_packet(c, &out, (uint32_t)(sizeof(packet) + count * sizeof(entry)));
  } while (alive && sent < l.count);
  free(l.entries);
  return alive;
}

/// Where the kernel cannot tell by a pidfd who connected, who asks must answer a challenge: its
/// credentials then are those of the moment of sending. `*sender` is its number, 0: not needed.
static bool must_challenge(connection *c, const request *r, const struct ucred *credentials,
                           pid_t *sender) {
  *sender = 0;
  if (c->pidfd >= 0 && !always_challenge) return false;
  *sender = credentials->pid;
  if (c->nonce != 0 && r->nonce == c->nonce && credentials->pid > 0) return false;
  const int yes = 1;
  setsockopt(c->fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes);
  c->nonce = 0;
  if (getrandom(&c->nonce, sizeof c->nonce, 0) != (ssize_t)sizeof c->nonce) c->nonce = 0;
  pthread_mutex_lock(&offers_lock);
  c->challenged = next_tick();
  pthread_mutex_unlock(&offers_lock);
  return true;
}

/// One request, with the sender's credentials where they were asked for. The space is for those
/// alone: a descriptor that somebody passes is dropped by the kernel.
static ssize_t receive_request(int fd, request *r, struct ucred *credentials) {
  union {
    char bytes[CMSG_SPACE(sizeof(struct ucred))];
    struct cmsghdr alignment;
  } control = {{0}};
  int passes = 0;
  socklen_t length_bytes = sizeof passes;
  getsockopt(fd, SOL_SOCKET, SO_PASSCRED, &passes, &length_bytes);
  struct iovec vector = {r, sizeof *r};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (passes) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_LEN(sizeof *credentials);
  }
  ssize_t received = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
  if (received < 0 || !passes) return received;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS)
    memcpy(credentials, CMSG_DATA(header), sizeof *credentials);
  return received;
}

bool answer_request(connection *c) {
  request r;
  struct ucred credentials = {0};
  ssize_t received = receive_request(c->fd, &r, &credentials);
  if (received < 0) return errno == EAGAIN || errno == EINTR;
  if (received != (ssize_t)sizeof r || r.magic != MAGIC) return false;
  pid_t sender;
  if (must_challenge(c, &r, &credentials, &sender)) return say(c, CHALLENGE, 0, c->nonce);
  c->nonce = 0;
  switch (r.kind) {
    case KIND_CLAIM: return answer_claim(c, (uintptr_t)r.address, sender);
    case KIND_LIST: return answer_list(c, false, sender);
    case KIND_LIST_ALL: return answer_list(c, true, sender);
    default: return false;
  }
}
