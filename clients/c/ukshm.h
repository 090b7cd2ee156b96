// ukshm.h: the C client of ukshm, messages through shared memory between processes of one machine.
//
// One header. Every file may include it; exactly one file of a program defines
// UKSHM_IMPLEMENTATION before it does. Needs Linux 5.14 or newer, glibc or musl, C11 with GNU
// extensions, threads; x86-64 or arm64:
//
//     cc -std=gnu11 -O2 -pthread program.c
//
// Rules. A received message is read-only memory of a sender that lives: it may change while you
// look. Read a value once and check the copy; copy before you parse in place. A channel belongs to
// one thread at a time; channels between which messages are forwarded, to one and the same thread.
// Whoever forks must not use the parent's channels in the child: their memory is not there.
//
// Results. Functions return 0 (or a pointer) for success and one of the negative numbers below (or
// NULL) otherwise; then `error`, where it is not NULL, says more. Timeouts are in milliseconds:
// -1 waits for ever, 0 only tries. Signals do not end a wait.
#ifndef UKSHM_H
#define UKSHM_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- Results ------------------------------------------------------------------------------------

enum {
  UKSHM_OK = 0,
  UKSHM_TIMEOUT = -1,       // nothing came, or no space was there, in the time given
  UKSHM_PEER_CLOSED = -2,   // the peer closed, and everything that it sent was received
  UKSHM_PEER_GONE = -3,     // the peer died; everything that it had sent was received
  UKSHM_PEER_MISBEHAVED = -4,
  UKSHM_ACCESS_DENIED = -5,
  UKSHM_CANNOT_FORWARD = -6,
  UKSHM_INVALID_ARGUMENT = -7,
  UKSHM_LIMIT = -8,
  UKSHM_LOAN_OPEN = -9,
  UKSHM_LOAN_USED = -10,
  UKSHM_MESSAGE_RELEASED = -11,
  UKSHM_MESSAGE_TOO_LONG = -12,
  UKSHM_NAME_IN_USE = -13,
  UKSHM_NO_LISTENER = -14,
  UKSHM_NO_MEMORY = -15,
  UKSHM_SYSCALL = -16,
  UKSHM_VERSION = -17,
  UKSHM_WRONG_OWNER = -18,
  UKSHM_NOT_A_REQUEST = -19,
  UKSHM_REMOTE = -20,       // the peer answered a request with a failure: the message is its own
  UKSHM_NOT_OFFERED = -21,  // no such topic at that name
  UKSHM_MAY_NOT_BLOCK = -22,
  UKSHM_TOO_SLOW = -23      // the publisher gave this subscriber up
};

// Why a function failed. Written only then.
typedef struct ukshm_error {
  int result;           // the negative number above
  int system_errno;     // of the system call that failed; 0: none did
  const char *code;     // "ERR_UKSHM_TIMEOUT" …: the same in every language
  char message[232];    // what happened, and what to do about it
} ukshm_error;

// ---- Meeting ------------------------------------------------------------------------------------

typedef struct ukshm_listener ukshm_listener;   // a name at which one meets
typedef struct ukshm_channel ukshm_channel;     // the way to one other process and back

#define UKSHM_NO_ARENA 1u   // as an arena's size: no large messages in this direction

// How a listener is to be. Zeros: the defaults.
typedef struct ukshm_listen_options {
  uint32_t ring_bytes;       // record ring of each direction unless the connector asks otherwise:
                             // a power of two, 4096 to 2^30; default 256 KiB
  uint32_t arena_bytes;      // memory for large messages, likewise: a multiple of 65536 up to 2^30,
                             // or UKSHM_NO_ARENA; default 4 MiB
  uint32_t arena_bytes_max;  // what a connector may ask for, or UKSHM_NO_ARENA; default 64 MiB, or
                             // arena_bytes if more
  uint32_t channels_max;     // channels at a time; default 1024
  uint64_t user_bytes_max;   // shared memory of one user's channels together; default 1 GiB
  const uint32_t *uids;      // users who may connect; NULL: the listener's own effective user
  uint32_t uid_count;        // up to 16
  int handshake_ms;          // how long a meeting may last; default 5000
  int spin_us;               // how long a wait looks before it sleeps; default 50, or none where
                             // there is one processor; -1: not at all
} ukshm_listen_options;

// How to connect. Zeros: the defaults.
typedef struct ukshm_connect_options {
  uint32_t ring_bytes, arena_bytes;                  // of what we send; default: as the listener
  uint32_t receive_ring_bytes, receive_arena_bytes;  // likes. UKSHM_NO_ARENA for none
  int wait_ms;                  // how long to wait for a listener to appear; 0: it is there; -1
  const uint32_t *uids;         // users who may own the listener; NULL: our own effective user
  uint32_t uid_count;           // up to 16
  int handshake_ms;             // how long the meeting may last; default 5000
  int spin_us;                  // as in ukshm_listen_options
  ukshm_listener *forward_via;  // our own listener, through which the other side may let third
                                // processes map what we send: it can then forward our messages
} ukshm_connect_options;

// Listens at `name`: letters, digits, '.', '_', '-' (a name of this user, in this network
// namespace), or a path that contains '/'. A thread of the listener meets connectors, and serves
// third processes to which messages are forwarded, from now on. `options` may be NULL.
// Does not block. NULL: UKSHM_NAME_IN_USE, UKSHM_INVALID_ARGUMENT, UKSHM_NO_MEMORY, UKSHM_SYSCALL.
ukshm_listener *ukshm_listen(const char *name, const ukshm_listen_options *options,
                             ukshm_error *error);

// The next channel that somebody opened. Blocks up to `timeout_ms`. NULL: UKSHM_TIMEOUT.
ukshm_channel *ukshm_accept(ukshm_listener *listener, int timeout_ms, ukshm_error *error);

// A descriptor that is readable (poll, epoll) while ukshm_accept would not wait. Not to be closed.
int ukshm_listener_fd(const ukshm_listener *listener);

// Listens no more. Its channels live on, but what they sent can no longer be forwarded to further
// processes. Blocks for a meeting's current step at most. NULL is ignored.
void ukshm_listener_close(ukshm_listener *listener);

// Connects to the listener at `name`. `options` may be NULL. Blocks up to `wait_ms` for a listener,
// then up to `handshake_ms`. NULL: UKSHM_NO_LISTENER, UKSHM_WRONG_OWNER, UKSHM_ACCESS_DENIED,
// UKSHM_LIMIT, UKSHM_NO_MEMORY, UKSHM_TIMEOUT, UKSHM_PEER_GONE, UKSHM_PEER_MISBEHAVED,
// UKSHM_VERSION, UKSHM_INVALID_ARGUMENT, UKSHM_SYSCALL.
ukshm_channel *ukshm_connect(const char *name, const ukshm_connect_options *options,
                             ukshm_error *error);

// Ends the channel and frees it, whatever the result. Waits up to `timeout_ms` until the peer has
// received and released everything; messages received here become invalid, open loans vanish.
// 0, UKSHM_TIMEOUT (not everything was read in time), or UKSHM_PEER_GONE, UKSHM_PEER_MISBEHAVED.
// NULL is ignored.
int ukshm_close(ukshm_channel *channel, int timeout_ms, ukshm_error *error);

// ---- Sending ------------------------------------------------------------------------------------

// An unsent message: write into `bytes`, set what you like, then ukshm_send_loan or ukshm_discard.
typedef struct ukshm_open_loan {
  uint8_t *bytes;   // the memory in place; what it holds is undefined
  size_t length;    // as asked for; may be lowered before sending
  uint32_t id;      // 0; any number by which requests and replies are matched
  uint32_t type;    // 0; 0 to 16383
  ukshm_channel *channel;                 // the rest is private
  uint32_t room, granule, granules;
} ukshm_open_loan;

// Lends memory for a message of `length` bytes. Small messages (up to an eighth of the ring, 8192
// at most, or 65520 without an arena) are sent in the order of their loans: one such loan may be
// open at a time, and nothing else be sent meanwhile. Larger ones lie in the arena, and any number
// of loans may be open. Blocks up to `timeout_ms` for space. 0, UKSHM_TIMEOUT (full),
// UKSHM_MESSAGE_TOO_LONG, UKSHM_LOAN_OPEN, UKSHM_PEER_CLOSED, UKSHM_PEER_GONE,
// UKSHM_PEER_MISBEHAVED.
int ukshm_loan(ukshm_channel *channel, size_t length, ukshm_open_loan *loan, int timeout_ms,
               ukshm_error *error);

// As ukshm_loan with a timeout of 0: does not block.
int ukshm_try_loan(ukshm_channel *channel, size_t length, ukshm_open_loan *loan,
                   ukshm_error *error);

// Sends the loan; with `publish` false the peer sees it at the next ukshm_publish, or at the latest
// when this side waits or finds no space. Never blocks. 0, UKSHM_LOAN_USED, UKSHM_LOAN_OPEN (a
// small loan was opened before: send or discard it first), UKSHM_INVALID_ARGUMENT (type, or length
// more than lent), UKSHM_PEER_CLOSED, UKSHM_PEER_GONE, UKSHM_PEER_MISBEHAVED (the loan is gone).
int ukshm_send_loan(ukshm_open_loan *loan, bool publish, ukshm_error *error);

// Gives the loan's memory back unsent. Once or more often; never blocks.
void ukshm_discard(ukshm_open_loan *loan);

// Copies `length` bytes into a message and sends it. Blocks up to `timeout_ms` for space.
// `type`: 0 to 16383; `id`: any. As ukshm_loan.
int ukshm_send(ukshm_channel *channel, const void *bytes, size_t length, uint32_t type, uint32_t id,
               int timeout_ms, ukshm_error *error);

// Likewise, but never blocks, and leaves the publishing to ukshm_publish where `publish` is false:
// many small messages are faster in batches. UKSHM_TIMEOUT: full; then all before is published.
int ukshm_try_send(ukshm_channel *channel, const void *bytes, size_t length, uint32_t type,
                   uint32_t id, bool publish, ukshm_error *error);

// Lets the peer see what was sent, and wakes it if it sleeps. Never blocks.
void ukshm_publish(ukshm_channel *channel);

// ---- Receiving ----------------------------------------------------------------------------------

// A received message. Release it through this struct, not through a copy of it.
typedef struct ukshm_message {
  const uint8_t *bytes;   // in place in the sender's memory; read-only: a write ends the process
  size_t length;
  uint32_t id;
  uint32_t type;
  bool request;           // the sender waits for ukshm_reply; released without, it is told so
  ukshm_channel *channel;                 // the rest is private; NULL: released
  struct ukshm__region *region;
  struct ukshm__aside *copy;
  uint64_t serial;
  uint32_t lease, generation, offset, kind;
} ukshm_message;

// The next message. Hold as many as you like, but small ones hold up the sender's ring. Blocks up
// to `timeout_ms`. 0 with a message, which must be released (or forwarded); UKSHM_TIMEOUT;
// UKSHM_PEER_CLOSED: the end; UKSHM_PEER_GONE, UKSHM_PEER_MISBEHAVED; UKSHM_NO_MEMORY.
int ukshm_receive(ukshm_channel *channel, ukshm_message *message, int timeout_ms,
                  ukshm_error *error);

// Gives the memory back to the sender; in any order, once or more often. Never blocks.
void ukshm_release(ukshm_message *message);

// Hands a received message on to another channel and gives up our hold. Large ones are not copied:
// the target maps the sender's memory (once; that takes a round trip) and its release comes back
// to the sender through us, whenever this program is inside a ukshm call on either channel. Blocks
// up to `timeout_ms`. 0, or the message is still held: UKSHM_TIMEOUT, UKSHM_CANNOT_FORWARD (the
// sender has no listener, or does not admit the target, or the message was forwarded to us, or is a
// request: send a copy), UKSHM_LIMIT (64 channels joined), UKSHM_MESSAGE_RELEASED, as ukshm_loan.
int ukshm_forward(ukshm_message *message, ukshm_channel *to, int timeout_ms, ukshm_error *error);

// ---- Requests -----------------------------------------------------------------------------------
//
// Either side may ask; each request has one answer, in any order. Messages that come while one
// waits for an answer are kept for ukshm_receive.

// Asks, and waits for the answer. `type`: 0 to 16383. Blocks up to `timeout_ms` for space and as
// long again for the answer; given up, the answer is dropped when it comes. 0 with a reply, which
// must be released; UKSHM_REMOTE; UKSHM_TIMEOUT, UKSHM_LIMIT (65536 requests under way), and as
// ukshm_loan and ukshm_receive.
int ukshm_request(ukshm_channel *channel, const void *bytes, size_t length, uint32_t type,
                  ukshm_message *reply, int timeout_ms, ukshm_error *error);

// The two halves of it, for several requests under way: `*id` is the request's number. The second
// may be called again after UKSHM_TIMEOUT, and after UKSHM_LIMIT: other messages that came before
// the answer fill 1 MiB; receive them first. UKSHM_INVALID_ARGUMENT: no such request waits.
int ukshm_ask(ukshm_channel *channel, const void *bytes, size_t length, uint32_t type, uint32_t *id,
              int timeout_ms, ukshm_error *error);
int ukshm_await(ukshm_channel *channel, uint32_t id, ukshm_message *reply, int timeout_ms,
                ukshm_error *error);

// As ukshm_ask, with a message written in place; never blocks. As ukshm_send_loan; UKSHM_LIMIT.
int ukshm_ask_loan(ukshm_open_loan *loan, uint32_t *id, ukshm_error *error);

// Waits for the answer to `id` no more; it is dropped when it comes. Never blocks.
void ukshm_give_up(ukshm_channel *channel, uint32_t id);

// Answers a request with a copy of `bytes`, or with a loan of the same channel (never blocks), and
// releases it. 0, or it is still unanswered: UKSHM_NOT_A_REQUEST, UKSHM_MESSAGE_RELEASED, and as
// ukshm_send and ukshm_send_loan.
int ukshm_reply(ukshm_message *request, const void *bytes, size_t length, uint32_t type,
                int timeout_ms, ukshm_error *error);
int ukshm_reply_loan(ukshm_message *request, ukshm_open_loan *loan, ukshm_error *error);

// Answers a request with a failure (its name and code without newlines; code may be ""), and
// releases it. Never blocks: without space it is sent in a later call.
void ukshm_refuse(ukshm_message *request, const char *name, const char *code, const char *text);

// ---- Topics: subscribing ------------------------------------------------------------------------
//
// One process publishes at a name, any number subscribe. A message is written once; each subscriber
// reads it in place and releases it. Numbers tell what was lost on the way.

typedef struct ukshm_subscription ukshm_subscription;

// What becomes of a message for a subscriber that has `depth` others which it has not released.
enum {
  UKSHM_DROP_OLDEST = 0,   // it waits at the publisher, among as many others; the oldest are lost
  UKSHM_DROP_NEWEST = 1,   // it is lost
  UKSHM_BLOCK = 2,         // the publisher waits; it must have allowed that
  UKSHM_DISCONNECT = 3     // the subscription ends with UKSHM_TOO_SLOW, behind what it was sent
};

// How to subscribe. Zeros: the defaults.
typedef struct ukshm_subscribe_options {
  int slow;               // one of the four above
  uint32_t depth;         // 1 to 4096; default 256. A small message (up to some KiB) that is kept
                          // counts, and so do those behind it
  int wait_ms;            // how long to wait for a publisher to appear; 0: it is there; -1
  const uint32_t *uids;   // users who may own the topic; NULL: our own effective user
  uint32_t uid_count;     // up to 16
  int answer_ms;          // how long it may take to answer; default 5000
  int spin_us;            // as in ukshm_listen_options
} ukshm_subscribe_options;

// Subscribes to the topic at `name`; when this returns, the publisher has admitted us, and nothing
// published from then on is missed without being counted. `options` may be NULL. NULL: as
// ukshm_connect; UKSHM_NOT_OFFERED (another topic has that name, or something else),
// UKSHM_MAY_NOT_BLOCK, and what else the publisher says.
ukshm_subscription *ukshm_subscribe(const char *name, const ukshm_subscribe_options *options,
                                    ukshm_error *error);

// The next message: its number is `id`, a u32 that wraps to 0. `missed`, unless NULL: how many
// messages were lost to us right before it. Blocks up to `timeout_ms`. 0 with a message, to be given
// back by ukshm_release; UKSHM_TIMEOUT; behind the last message UKSHM_PEER_CLOSED (the topic was
// closed), UKSHM_PEER_GONE (the publisher died), UKSHM_TOO_SLOW (it gave us up);
// UKSHM_PEER_MISBEHAVED, UKSHM_NO_MEMORY.
int ukshm_topic_receive(ukshm_subscription *subscription, ukshm_message *message, uint32_t *missed,
                        int timeout_ms, ukshm_error *error);

typedef struct ukshm_subscription_stats {
  uint64_t received, missed;   // messages read; lost before or between them
  uint32_t kept;               // how many the topic had kept for us: they came first
  uint32_t publisher_uid;
  int32_t publisher_pid;
} ukshm_subscription_stats;

void ukshm_subscription_numbers(const ukshm_subscription *subscription,
                                ukshm_subscription_stats *stats);

// Its channel, for ukshm_fd, ukshm_prepare, ukshm_poll and ukshm_stats; for nothing else.
ukshm_channel *ukshm_subscription_channel(ukshm_subscription *subscription);

// Ends the subscription and frees it; messages that are held become invalid. NULL is ignored.
void ukshm_unsubscribe(ukshm_subscription *subscription);

// ---- Topics: publishing -------------------------------------------------------------------------
//
// A thread of the topic admits subscribers and hears what they release. Any thread may publish.

typedef struct ukshm_topic ukshm_topic;

// How a topic is to be. Zeros: the defaults.
typedef struct ukshm_topic_options {
  uint32_t arena_bytes;      // memory for messages beyond 2 KiB, which all subscribers share; one
                             // takes at most a quarter. A multiple of 65536; default 16 MiB
  uint32_t ring_bytes;       // memory for small ones, a subscriber; a power of two; default 256 KiB
  uint32_t subscribers_max;  // at a time; default 1024
  uint32_t keep;             // how many of the last messages a late subscriber gets, 0 to 4096;
                             // fewer if they take more than a quarter of the arena
  bool may_block;            // whether subscribers may choose UKSHM_BLOCK: any can then stop it
  int patience_ms;           // while the arena is exhausted, publishing waits so long; then
                             // subscribers that released nothing are disconnected. Default 200
  uint32_t first_sequence;   // the number of the first message
  const uint32_t *uids;      // users who may subscribe; NULL: our own effective user
  uint32_t uid_count;        // up to 16
} ukshm_topic_options;

// Takes `name` (as ukshm_listen does) and publishes there. `options` may be NULL. Does not block.
// NULL: as ukshm_listen.
ukshm_topic *ukshm_topic_open(const char *name, const ukshm_topic_options *options,
                              ukshm_error *error);

// Sends a message to all subscribers; copies it once. Blocks up to `timeout_ms`: while the arena is
// exhausted, or a subscriber that may block the topic does. 0, UKSHM_TIMEOUT (nobody was sent
// anything), UKSHM_MESSAGE_TOO_LONG, UKSHM_NO_MEMORY.
int ukshm_topic_publish(ukshm_topic *topic, const void *bytes, size_t length, int timeout_ms,
                        ukshm_error *error);

// A message that is not yet published: write into `bytes`, then ukshm_topic_send or
// ukshm_topic_discard.
typedef struct ukshm_publication {
  uint8_t *bytes;   // the memory in place; what it holds is undefined
  size_t length;    // as asked for; may be lowered before publishing
  ukshm_topic *topic;                     // the rest is private; NULL: published or discarded
  struct ukshm__parcel *parcel;
  size_t room;
} ukshm_publication;

// Lends memory for a message. Blocks up to `timeout_ms` for space. As ukshm_topic_publish.
int ukshm_topic_lend(ukshm_topic *topic, size_t length, ukshm_publication *publication,
                     int timeout_ms, ukshm_error *error);

// Publishes it. Blocks up to `timeout_ms` while a subscriber blocks. 0, or it is still ours:
// UKSHM_TIMEOUT, UKSHM_INVALID_ARGUMENT (length more than lent), UKSHM_LOAN_USED.
int ukshm_topic_send(ukshm_publication *publication, int timeout_ms, ukshm_error *error);

// Gives the memory back unpublished. Once or more often; never blocks.
void ukshm_topic_discard(ukshm_publication *publication);

typedef struct ukshm_topic_stats {
  uint32_t sequence;       // the number of the next message, a u32 that wraps to 0
  uint32_t subscribers;    // now
  uint32_t kept;           // messages that late subscribers would get
  uint32_t message_bytes_max;
  uint64_t shared_bytes;   // of the memory that the subscribers share
  uint64_t free_bytes;     // of these, what nobody holds
} ukshm_topic_stats;

void ukshm_topic_numbers(ukshm_topic *topic, ukshm_topic_stats *stats);

typedef struct ukshm_subscriber_stats {
  int32_t pid;
  uint32_t uid;
  int slow;                // UKSHM_DROP_OLDEST …
  uint32_t depth;
  uint32_t outstanding;    // messages that it was sent and has not released
  uint32_t queued;         // that wait here for it
  uint64_t sent, dropped;  // that it was sent, and that it lost
} ukshm_subscriber_stats;

// Writes up to `room` of the subscribers there are, and returns how many there are.
size_t ukshm_topic_subscribers(ukshm_topic *topic, ukshm_subscriber_stats *stats, size_t room);

// Ends the topic and frees it, whatever the result. Subscribers get what waits for them, and have
// `timeout_ms` to read and release it. No other thread may be using it, no loan be open. 0, or
// UKSHM_TIMEOUT: not everybody had. NULL is ignored.
int ukshm_topic_close(ukshm_topic *topic, int timeout_ms, ukshm_error *error);

// ---- For programs with their own poll loop, and numbers -----------------------------------------

// A descriptor to poll for POLLIN beside your own, until the channel is closed. Not to be closed.
int ukshm_fd(const ukshm_channel *channel);

#define UKSHM_MESSAGES 1u   // something to receive
#define UKSHM_SPACE 2u      // memory for a message, after UKSHM_TIMEOUT of a try

// To be called last before polling ukshm_fd: asks the peer to ring. Returns 1: do not sleep, try
// again; 0: sleep until ukshm_fd is readable, then make the call that you wait for, with a timeout
// of 0, until it answers UKSHM_TIMEOUT. Whoever forwards, prepares and polls both channels.
int ukshm_prepare(ukshm_channel *channel, unsigned what);

// Does what waits to be done: the peer's requests, releases of what was forwarded. Never blocks.
// Returns 1 if ukshm_receive would not wait: for a message, or for the news that the channel ended.
// While a request of ours waits for its answer, messages are taken in, and small ones copied.
int ukshm_poll(ukshm_channel *channel);

typedef struct ukshm_channel_stats {
  uint64_t sent_messages, sent_bytes, received_messages, received_bytes;
  uint64_t rings_sent, sleeps;           // doorbells; waits that slept
  uint32_t ring_bytes_used;              // of our ring, not yet released by the peer
  uint32_t chunks_lent;                  // large messages that the peer holds
  uint64_t arena_bytes_used;             // of our arena: lent, or open loans
  uint32_t held_inline, held_chunks;     // received and not released
  uint64_t shared_bytes;                 // of both outboxes
  uint32_t message_bytes_max;            // the longest message that can be sent
  uint32_t peer_uid;
  int32_t peer_pid;
} ukshm_channel_stats;

// The channel's numbers. Never blocks.
void ukshm_stats(const ukshm_channel *channel, ukshm_channel_stats *stats);

#ifdef __cplusplus
}
#endif
#endif  // UKSHM_H

// =================================================================================================
#if defined(UKSHM_IMPLEMENTATION) && !defined(UKSHM_IMPLEMENTED)
#define UKSHM_IMPLEMENTED

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the memory format is little-endian"
#endif
// Linux's numbers that older C libraries lack.
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

// ---- Layout (docs/FORMAT.md) --------------------------------------------------------------------
//
// An outbox: one writer, its owner; mapped read-only by the other side. Written words lie 128 bytes
// apart, because processors fetch cache lines in pairs.
//
//     0       128   256   384           512             640           768      4096
//     | config| tail| head| release tail| asleep for    | asleep for  | state  | record ring
//                                         records         space
//     | release ring: 4096 slots of 8 bytes | to a multiple of 65536 | arena of chunks
enum {
  UKSHM__TAIL = 128,
  UKSHM__HEAD = 256,
  UKSHM__RELEASE_TAIL = 384,
  UKSHM__ASLEEP_RECORDS = 512,
  UKSHM__ASLEEP_SPACE = 640,
  UKSHM__STATE = 768,
  UKSHM__RING = 4096,
  UKSHM__SLOTS = 4096,       // release slots, and so leases at a time
  UKSHM__HEADER = 8,         // of a record: u16 length, u16 type, u32 id
  UKSHM__DESCRIPTOR = 24,    // body: u32 offset, length, lease, generation, region, type
  UKSHM__TYPE_MAX = 0x3fff,  // of a program; on top of it the kind of a record:
  UKSHM__REQUEST = 0x4000,
  UKSHM__REPLY = 0x8000,
  UKSHM__FAILURE = 0xc000,   // always with type 0
  UKSHM__TYPE_DESCRIPTOR = 0xfffe,
  UKSHM__TYPE_PADDING = 0xffff,
  UKSHM__GRANULE = 4096,     // arena memory is given out in these
  UKSHM__FLIGHT = 2 << 20,   // bytes of chunks at a time: more would only leave the cache
  UKSHM__RESERVE = 64,       // ring bytes kept for the descriptor of an open loan, padding included
  UKSHM__REGIONS = 64,       // foreign outboxes that a peer may have us map
  UKSHM__GROUP = 64,         // channels joined by forwarding
  UKSHM__MEETINGS = 64,      // meetings under way at a listener …
  UKSHM__MEETINGS_EACH = 16, // … with one process; and threads that check foreign descriptors: 64
  UKSHM__ADDRESS = 110,      // bytes of struct sockaddr_un at most
  UKSHM__UIDS = 16,
  UKSHM__REQUESTS = 65536,   // under way at a time
  UKSHM__FAILURE_BYTES = 4096,
  UKSHM__ASIDE_MAX = 1 << 20 // bytes of small messages that are copied out of their order
};
#define UKSHM__MAX_BYTES (UINT32_C(1) << 30)
#define UKSHM__AS_YOU_LIKE UINT32_C(0xffffffff)
#define UKSHM__NEVER INT64_MAX
#define UKSHM__SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)
#define UKSHM__SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

typedef struct ukshm__sizes {
  uint32_t ring, arena, release_offset, arena_offset, total;
} ukshm__sizes;

// Computes the layout; false where the sizes are impossible.
static bool ukshm__layout(ukshm__sizes *sizes, uint32_t ring, uint32_t arena) {
  if (ring < 4096 || ring > UKSHM__MAX_BYTES || (ring & (ring - 1)) != 0) return false;
  if (arena > UKSHM__MAX_BYTES || (arena & 0xffff) != 0) return false;
  sizes->ring = ring;
  sizes->arena = arena;
  sizes->release_offset = UKSHM__RING + ring;
  sizes->arena_offset = (sizes->release_offset + UKSHM__SLOTS * 8 + 0xffff) & ~UINT32_C(0xffff);
  sizes->total = sizes->arena_offset + arena;
  return true;
}

static uint32_t ukshm__inline_max(const ukshm__sizes *sizes) {
  uint32_t most = sizes->arena == 0 ? 65520 : 8192;
  return sizes->ring / 8 < most ? sizes->ring / 8 : most;
}

static uint32_t ukshm__record_bytes(uint32_t length) {
  return UKSHM__HEADER + ((length + 7) & ~UINT32_C(7));
}

// ACQUIRE a word of the peer's outbox; pairs with ukshm__put there: what came before it is visible.
static inline uint32_t ukshm__get(const uint8_t *outbox, uint32_t offset) {
  return __atomic_load_n((const uint32_t *)(const void *)(outbox + offset), __ATOMIC_ACQUIRE);
}

// Once: the compiler must not read the peer's memory again where it uses the copy.
static inline uint32_t ukshm__once(const uint8_t *at) {
  return __atomic_load_n((const uint32_t *)(const void *)at, __ATOMIC_RELAXED);
}

// RELEASE a word of our own outbox.
static inline void ukshm__put(uint8_t *outbox, uint32_t offset, uint32_t value) {
  __atomic_store_n((uint32_t *)(void *)(outbox + offset), value, __ATOMIC_RELEASE);
}

static inline void ukshm__set32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static inline uint32_t ukshm__get32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

// ---- Errors and time ----------------------------------------------------------------------------

static const char *ukshm__code(int result) {
  static const char *const codes[] = {
      "OK", "ERR_UKSHM_TIMEOUT", "ERR_UKSHM_PEER_CLOSED", "ERR_UKSHM_PEER_GONE",
      "ERR_UKSHM_PEER_MISBEHAVED", "ERR_UKSHM_ACCESS_DENIED", "ERR_UKSHM_CANNOT_FORWARD",
      "ERR_UKSHM_INVALID_ARGUMENT", "ERR_UKSHM_LIMIT", "ERR_UKSHM_LOAN_OPEN", "ERR_UKSHM_LOAN_USED",
      "ERR_UKSHM_MESSAGE_RELEASED", "ERR_UKSHM_MESSAGE_TOO_LONG", "ERR_UKSHM_NAME_IN_USE",
      "ERR_UKSHM_NO_LISTENER", "ERR_UKSHM_NO_MEMORY", "ERR_UKSHM_SYSCALL", "ERR_UKSHM_VERSION",
      "ERR_UKSHM_WRONG_OWNER", "ERR_UKSHM_NOT_A_REQUEST", "ERR_UKSHM_REMOTE",
      "ERR_UKSHM_NOT_OFFERED", "ERR_UKSHM_MAY_NOT_BLOCK", "ERR_UKSHM_TOO_SLOW"};
  return codes[-result];
}

// Fills `error` and returns `result`.
__attribute__((format(printf, 3, 4))) static int ukshm__fail(ukshm_error *error, int result,
                                                             const char *format, ...) {
  if (error == NULL) return result;
  error->result = result;
  error->system_errno = 0;
  error->code = ukshm__code(result);
  va_list list;
  va_start(list, format);
  vsnprintf(error->message, sizeof error->message, format, list);
  va_end(list);
  return result;
}

static int ukshm__fail_call(ukshm_error *error, const char *call) {
  int number = errno;
  int result = number == ENOMEM || number == ENOSPC ? UKSHM_NO_MEMORY : UKSHM_SYSCALL;
  ukshm__fail(error, result, "%s failed with errno %d", call, number);
  if (error != NULL) error->system_errno = number;
  return result;
}

// "Full" and "nothing yet" are no failures: they must be cheap.
static int ukshm__timeout(ukshm_error *error) {
  if (error == NULL) return UKSHM_TIMEOUT;
  error->result = UKSHM_TIMEOUT;
  error->system_errno = 0;
  error->code = ukshm__code(UKSHM_TIMEOUT);
  memcpy(error->message, "not in the time given", sizeof "not in the time given");
  return UKSHM_TIMEOUT;
}

static int64_t ukshm__nanos(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t ukshm__now_ms(void) { return ukshm__nanos(CLOCK_MONOTONIC) / 1000000; }

static int64_t ukshm__deadline(int timeout_ms) {
  return timeout_ms < 0 ? UKSHM__NEVER : ukshm__now_ms() + timeout_ms;
}

// For poll(2): rounded up, so that nobody spins through the last millisecond.
static int ukshm__left_ms(int64_t deadline) {
  if (deadline == UKSHM__NEVER) return -1;
  int64_t left = deadline - ukshm__now_ms();
  return left <= 0 ? 0 : left > 1000000000 ? 1000000000 : (int)left;
}

// Whether one of `events` happened before the deadline.
static bool ukshm__ready(int fd, short events, int64_t deadline) {
  struct pollfd entry = {.fd = fd, .events = events};
  for (;;) {
    int count = poll(&entry, 1, ukshm__left_ms(deadline));
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return false;
    if (ukshm__now_ms() >= deadline) return false;
  }
}

// ---- The meeting's greetings and the frames, as bytes; no socket here ---------------------------

enum { UKSHM__HELLO_BYTES = 256, UKSHM__WELCOME_BYTES = 64, UKSHM__ACK_BYTES = 16 };
#define UKSHM__HELLO_MAGIC UINT32_C(0x49484b55)
#define UKSHM__WELCOME_MAGIC UINT32_C(0x45574b55)
#define UKSHM__ACK_MAGIC UINT32_C(0x4b4f4b55)
enum { UKSHM__CHANNEL = 0, UKSHM__IMPORT = 1, UKSHM__INFO = 2 };
enum { UKSHM__CANNOT_FENCE = 1, UKSHM__HUGE_PAGES = 2 };
enum {
  UKSHM__NO_VERSION = 1, UKSHM__NO_ACCESS, UKSHM__NO_LIMIT, UKSHM__NO_ROOM, UKSHM__NO_TOKEN,
  UKSHM__MALFORMED
};

typedef struct ukshm__hello {
  uint32_t kind, flags, send_ring, send_arena, receive_ring, receive_arena;
  uint8_t token[8];
  uint32_t address_length;
  uint8_t address[UKSHM__ADDRESS];
} ukshm__hello;

typedef struct ukshm__welcome {
  uint32_t status, flags, ring, arena, back_ring, back_arena;
  uint8_t token[8];
} ukshm__welcome;

static void ukshm__encode_hello(const ukshm__hello *hello, uint8_t *bytes) {
  memset(bytes, 0, UKSHM__HELLO_BYTES);
  const uint32_t words[] = {UKSHM__HELLO_MAGIC, 1, hello->kind, hello->flags, hello->send_ring,
                            hello->send_arena, hello->receive_ring, hello->receive_arena};
  memcpy(bytes, words, sizeof words);
  memcpy(bytes + 32, hello->token, 8);
  ukshm__set32(bytes + 40, hello->address_length);
  memcpy(bytes + 44, hello->address, hello->address_length);
}

// Returns 0 or the status with which it is refused.
static uint32_t ukshm__decode_hello(const uint8_t *bytes, ukshm__hello *hello) {
  uint32_t words[8];
  memcpy(words, bytes, sizeof words);
  if (words[0] != UKSHM__HELLO_MAGIC) return UKSHM__MALFORMED;
  if (words[1] != 1) return UKSHM__NO_VERSION;
  *hello = (ukshm__hello){words[2], words[3], words[4], words[5], words[6], words[7], {0}, 0, {0}};
  hello->address_length = ukshm__get32(bytes + 40);
  if (hello->kind > UKSHM__INFO || hello->address_length > UKSHM__ADDRESS) return UKSHM__MALFORMED;
  memcpy(hello->token, bytes + 32, 8);
  memcpy(hello->address, bytes + 44, hello->address_length);
  return 0;
}

static void ukshm__encode_welcome(const ukshm__welcome *welcome, uint8_t *bytes) {
  memset(bytes, 0, UKSHM__WELCOME_BYTES);
  const uint32_t words[] = {UKSHM__WELCOME_MAGIC, 1, welcome->status, welcome->flags, welcome->ring,
                            welcome->arena, welcome->back_ring, welcome->back_arena};
  memcpy(bytes, words, sizeof words);
  memcpy(bytes + 32, welcome->token, 8);
}

static int ukshm__refused(uint32_t status, ukshm_error *error) {
  switch (status) {
    case UKSHM__NO_VERSION:
      return ukshm__fail(error, UKSHM_VERSION,
                         "the listener speaks another version: use the same ukshm on both sides");
    case UKSHM__NO_ACCESS:
      return ukshm__fail(error, UKSHM_ACCESS_DENIED,
                         "the listener does not admit this process: name its user in the listener");
    case UKSHM__NO_LIMIT:
      return ukshm__fail(error, UKSHM_LIMIT, "the listener has reached a limit (channels, a "
                         "user's memory, arena size): ask for less, close channels, or raise it");
    case UKSHM__NO_ROOM:
      return ukshm__fail(error, UKSHM_NO_MEMORY, "the listener found no memory for the channel");
    case UKSHM__NO_TOKEN:
      return ukshm__fail(error, UKSHM_CANNOT_FORWARD, "the listener has no such outbox now");
    default:
      return ukshm__fail(error, UKSHM_PEER_MISBEHAVED,
                         "the listener did not understand our greeting");
  }
}

static int ukshm__decode_welcome(const uint8_t *bytes, ukshm__welcome *welcome,
                                 ukshm_error *error) {
  uint32_t words[8];
  memcpy(words, bytes, sizeof words);
  if (words[0] != UKSHM__WELCOME_MAGIC) {
    return ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "what listens there is no ukshm");
  }
  if (words[1] != 1) return ukshm__refused(UKSHM__NO_VERSION, error);
  if (words[2] != 0) return ukshm__refused(words[2], error);
  *welcome = (ukshm__welcome){0, words[3], words[4], words[5], words[6], words[7], {0}};
  memcpy(welcome->token, bytes + 32, 8);
  return 0;
}

// Both outboxes of a channel: what a WELCOME names must be possible.
static int ukshm__check_sizes(const ukshm__welcome *welcome, bool both, ukshm__sizes *theirs,
                              ukshm__sizes *ours, ukshm_error *error) {
  if (ukshm__layout(theirs, welcome->ring, welcome->arena) &&
      (!both || ukshm__layout(ours, welcome->back_ring, welcome->back_arena))) {
    return 0;
  }
  return ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "the listener names impossible sizes");
}

static void ukshm__encode_ack(uint8_t *bytes) {
  memset(bytes, 0, UKSHM__ACK_BYTES);
  ukshm__set32(bytes, UKSHM__ACK_MAGIC);
  ukshm__set32(bytes + 4, 1);
}

static bool ukshm__is_ack(const uint8_t *bytes) {
  return ukshm__get32(bytes) == UKSHM__ACK_MAGIC && ukshm__get32(bytes + 4) == 1;
}

// Frames, by their first byte:
//
//     IMPORT    u8 2, u32 region, 8 bytes token, u32 uid, u32 length, sockaddr_un, to 132 bytes
//     IMPORTED  u8 3, u32 region, u32 1 or 0
//     DROP      u8 4, u32 region
enum { UKSHM__F_RING = 1, UKSHM__F_IMPORT, UKSHM__F_IMPORTED, UKSHM__F_DROP };
enum { UKSHM__FRAME_BYTES = 132 };

typedef struct ukshm__frames {
  uint8_t frame[UKSHM__FRAME_BYTES];
  size_t have;
} ukshm__frames;

// Moves bytes of a stream on until `frames->frame` is a whole one. 1: it is; 0: the bytes are used
// up; -1: this is no frame.
static int ukshm__next_frame(ukshm__frames *frames, const uint8_t **bytes, size_t *count) {
  static const uint8_t lengths[] = {0, 1, UKSHM__FRAME_BYTES, 9, 5};
  if (*count == 0) return 0;
  uint8_t type = frames->have > 0 ? frames->frame[0] : **bytes;
  if (type == 0 || type > UKSHM__F_DROP) return -1;
  size_t length = lengths[type];
  size_t more = length - frames->have < *count ? length - frames->have : *count;
  memcpy(frames->frame + frames->have, *bytes, more);
  frames->have += more;
  *bytes += more;
  *count -= more;
  if (frames->have < length) return 0;
  frames->have = 0;
  if (type != UKSHM__F_IMPORT) return 1;
  uint32_t address = ukshm__get32(frames->frame + 17);
  bool good = ukshm__get32(frames->frame + 1) != 0 && address >= 3 && address <= UKSHM__ADDRESS;
  return good ? 1 : -1;
}

// ---- One end of a channel: both outboxes and the private books; no system calls here ------------
//
// What the peer wrote is input: each word is read once, checked against the private books, then
// used. Nothing of our own outbox is ever read back. A lie sets `broken`; the end is then dead.
//
// A lease: free → out (sent) → free (released by the peer, or all at once when the channel ends).
// Prohibited: a release of a free lease, or one of another generation.

typedef struct ukshm__export ukshm__export;
struct ukshm__parcel;

typedef struct ukshm__lease {
  uint32_t generation;
  uint32_t granule, granules;                 // our chunk; granules 0: a forwarded message …
  ukshm__export *export;                      // … and then how, and what we hold of its sender
  uint32_t source_lease, source_generation;
  struct ukshm__parcel *parcel;               // a message of a topic of ours: this one
  bool out;
} ukshm__lease;

typedef struct ukshm__extent {
  uint32_t first, count;   // granules
} ukshm__extent;

// A foreign outbox that the peer had us map, to forward from.
typedef struct ukshm__region {
  uint32_t number, total, held;
  const uint8_t *base;
  size_t mapped;
  bool dropped;
  struct ukshm__meet *meet;   // while it is being mapped
} ukshm__region;

// A message that came while something else was waited for. A small one is copied, and does not hold
// up the ring: what is waited for comes behind it.
typedef struct ukshm__aside {
  struct ukshm__aside *next;
  ukshm_message message;
  uint8_t bytes[];
} ukshm__aside;

// A request of ours: free → asked → answered → free, or asked → given up → free (when the answer
// has come). Prohibited: an answer to one that is free or answered. Its number in the table is the
// lower half of its id, how often that was used before the upper half.
typedef struct ukshm__slot {
  uint32_t id, next_free;
  enum { UKSHM__FREE, UKSHM__WAITING, UKSHM__GIVEN_UP, UKSHM__ANSWERED } state;
  ukshm__aside *answer;
} ukshm__slot;

typedef struct ukshm__end {
  uint8_t *own;
  const uint8_t *peer;
  ukshm__sizes out, in;
  const char *broken;            // what the peer did
  bool published_news, released_news;   // since the peer's sleep words were looked at
  // Sending. An open inline loan lies at the tail and takes `inline_open` bytes.
  uint32_t tail, published, head_seen, release_seen, inline_open, chunks_open;
  uint32_t leases_out, leases_fresh, leases_spare, forwards_out;
  ukshm__lease *leases;
  uint16_t *spare;               // leases that came back: last in, first out
  ukshm__extent *extents;        // free granules of our arena, sorted, never adjacent
  uint32_t extent_count, chunks, granules_used;
  // Receiving. `ends` queues the inline messages that are held, by where they end in the ring;
  // bit 0: released. The head stands before the first that is not.
  uint32_t position, tail_seen, head, head_published;
  uint32_t release_tail, leases_held, inline_held;
  bool frozen;                   // what the peer publishes now does not count
  uint32_t *ends;
  uint32_t ends_capacity, ends_count;
  uint64_t ends_first;           // serial number of the first
  ukshm__region *regions[UKSHM__REGIONS];
  uint32_t region_count;
  ukshm__slot *slots;
  uint32_t slot_count, slot_free;   // slot_free: the first of the free ones; slot_count: none
  uint32_t unanswered;
} ukshm__end;

static void ukshm__end_free(ukshm__end *end) {
  free(end->leases);
  free(end->spare);
  free(end->extents);
  free(end->ends);
  for (uint32_t i = 0; i < end->slot_count; i++) free(end->slots[i].answer);
  free(end->slots);
}

// Needs own, peer, out, in; the rest is zero. False: no memory.
static bool ukshm__end_start(ukshm__end *end) {
  end->leases = calloc(UKSHM__SLOTS, sizeof *end->leases);
  end->spare = calloc(UKSHM__SLOTS, sizeof *end->spare);
  // Each chunk splits an extent at most: leases and open loans together are never more than slots.
  end->extents = calloc(UKSHM__SLOTS + 2, sizeof *end->extents);
  if (end->leases == NULL || end->spare == NULL || end->extents == NULL) return false;
  end->extents[0] = (ukshm__extent){0, end->out.arena / UKSHM__GRANULE};
  end->extent_count = end->out.arena == 0 ? 0 : 1;
  const uint32_t config[] = {0x48534b55, 1, end->out.ring, end->out.release_offset, UKSHM__SLOTS,
                             end->out.arena_offset, end->out.arena};
  memcpy(end->own, config, sizeof config);
  return true;
}

static int ukshm__lie(ukshm__end *end, const char *what) {
  if (end->broken == NULL) end->broken = what;
  return -1;
}

// First fit: the same low addresses again and again stay in the cache. False: none so long is free.
static bool ukshm__arena_take(ukshm__end *end, uint32_t granules, uint32_t *first) {
  for (uint32_t i = 0; i < end->extent_count; i++) {
    ukshm__extent *extent = &end->extents[i];
    if (extent->count < granules) continue;
    *first = extent->first;
    extent->first += granules;
    extent->count -= granules;
    if (extent->count == 0) {
      end->extent_count--;
      memmove(extent, extent + 1, (end->extent_count - i) * sizeof *extent);
    }
    end->chunks++;
    // The listener's thread reads this for its information.
    __atomic_store_n(&end->granules_used, end->granules_used + granules, __ATOMIC_RELAXED);
    return true;
  }
  return false;
}

static void ukshm__arena_give(ukshm__end *end, uint32_t first, uint32_t granules) {
  uint32_t low = 0, high = end->extent_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (end->extents[middle].first < first) low = middle + 1;
    else high = middle;
  }
  ukshm__extent *next = &end->extents[low];
  bool joins_next = low < end->extent_count && first + granules == next->first;
  bool joins_last = low > 0 && next[-1].first + next[-1].count == first;
  if (joins_last) {
    next[-1].count += granules + (joins_next ? next->count : 0);
    if (joins_next) memmove(next, next + 1, (--end->extent_count - low) * sizeof *next);
  } else if (joins_next) {
    *next = (ukshm__extent){first, next->count + granules};
  } else {
    memmove(next + 1, next, (end->extent_count++ - low) * sizeof *next);
    *next = (ukshm__extent){first, granules};
  }
  end->chunks--;
  __atomic_store_n(&end->granules_used, end->granules_used - granules, __ATOMIC_RELAXED);
}

// Gives a chunk back to the peer that lent it.
static void ukshm__give_back(ukshm__end *end, uint32_t lease, uint32_t generation) {
  uint8_t *slot = end->own + end->out.release_offset + (end->release_tail % UKSHM__SLOTS) * 8;
  ukshm__set32(slot, lease);
  ukshm__set32(slot + 4, generation);
  end->leases_held--;
  // RELEASE: our reads of the chunk and the slot come before it.
  ukshm__put(end->own, UKSHM__RELEASE_TAIL, ++end->release_tail);
  end->released_news = true;
}

// A region of somebody else's that the peer maps at our wish, to be forwarded from.
struct ukshm__export {
  ukshm__export *next;
  ukshm__end *source;   // through which its messages reach us; NULL: that channel was closed
  struct ukshm__plot *plot;       // or a topic's memory, and who has it mapped
  struct ukshm__outlet *outlet;
  uint32_t number, lent, held;    // held: granules of the plot
  enum { UKSHM__ASKED, UKSHM__MAPPED, UKSHM__REFUSED } state;
};

static void ukshm__parcel_back(ukshm__export *export, struct ukshm__parcel *parcel);

static void ukshm__come_back(ukshm__end *end, uint32_t number) {
  ukshm__lease *lease = &end->leases[number];
  lease->out = false;
  lease->generation++;
  end->spare[end->leases_spare++] = (uint16_t)number;
  end->leases_out--;
  if (lease->export == NULL) {
    ukshm__arena_give(end, lease->granule, lease->granules);
    return;
  }
  end->forwards_out--;
  lease->export->lent--;
  ukshm__end *source = lease->export->source;
  if (source != NULL) ukshm__give_back(source, lease->source_lease, lease->source_generation);
  if (lease->parcel != NULL) ukshm__parcel_back(lease->export, lease->parcel);
  lease->export = NULL;
}

// The peer is gone: what was forwarded to it is its senders' again.
static void ukshm__revoke_forwards(ukshm__end *end) {
  for (uint32_t i = 0; i < end->leases_fresh && end->forwards_out > 0; i++) {
    if (end->leases[i].out && end->leases[i].export != NULL) ukshm__come_back(end, i);
  }
}

// Takes back what the peer released. -1: it lied.
static int ukshm__collect(ukshm__end *end) {
  if (end->broken != NULL) return -1;
  // ACQUIRE head: the peer's reads of what lies before it are over.
  uint32_t head = ukshm__get(end->peer, UKSHM__HEAD);
  if ((head & 7) != 0 || head - end->head_seen > end->published - end->head_seen) {
    return ukshm__lie(end, "its head is not between the last one and our tail");
  }
  end->head_seen = head;
  // ACQUIRE release tail: likewise for chunks, and the slots are written.
  uint32_t tail = ukshm__get(end->peer, UKSHM__RELEASE_TAIL);
  if (tail - end->release_seen > end->leases_out) {
    return ukshm__lie(end, "it released more chunks than it was lent");
  }
  for (; end->release_seen != tail; end->release_seen++) {
    const uint8_t *slot =
        end->peer + end->in.release_offset + (end->release_seen % UKSHM__SLOTS) * 8;
    uint32_t lease = ukshm__once(slot), generation = ukshm__once(slot + 4);
    if (lease >= UKSHM__SLOTS || !end->leases[lease].out ||
        end->leases[lease].generation != generation) {
      return ukshm__lie(end, "it released a chunk that it was not lent");
    }
    ukshm__come_back(end, lease);
  }
  return 0;
}

static uint32_t ukshm__ring_free(const ukshm__end *end) {
  return end->out.ring - (end->tail - end->head_seen) - end->inline_open;
}

// Space for a record at the tail, behind padding where it does not fit before the ring's end; NULL:
// full. `reserve`: what must stay free for open loans of chunks. Padding stays even if the record
// does not fit then: published, it lets the reader free the ring's end.
static uint8_t *ukshm__place(ukshm__end *end, uint32_t length, uint32_t reserve) {
  uint32_t need = ukshm__record_bytes(length);
  uint32_t at = end->tail & (end->out.ring - 1);
  uint32_t rest = end->out.ring - at;
  if (need > rest) {
    if (ukshm__ring_free(end) < reserve + rest) return NULL;
    ukshm__set32(end->own + UKSHM__RING + at, ((uint32_t)UKSHM__TYPE_PADDING << 16) | (rest / 8));
    end->tail += rest;
    at = 0;
  }
  if (ukshm__ring_free(end) < reserve + need) return NULL;
  return end->own + UKSHM__RING + at;
}

static void ukshm__commit(ukshm__end *end, uint32_t length, uint32_t type, uint32_t id) {
  uint8_t *record = end->own + UKSHM__RING + (end->tail & (end->out.ring - 1));
  ukshm__set32(record, length | (type << 16));
  ukshm__set32(record + 4, id);
  end->tail += ukshm__record_bytes(length);
}

// Sends a chunk, ours or a forwarded one (`lease` as prepared by the caller). The space is there:
// open loans reserve it, and forwarding asks before.
static void ukshm__commit_chunk(ukshm__end *end, uint32_t offset, uint32_t length, uint32_t region,
                                uint32_t type, uint32_t id, ukshm__lease lease) {
  uint32_t number =
      end->leases_spare > 0 ? end->spare[--end->leases_spare] : end->leases_fresh++;
  lease.generation = end->leases[number].generation;
  lease.out = true;
  end->leases[number] = lease;
  end->leases_out++;
  const uint32_t body[] = {offset, length, number, lease.generation, region, type};
  uint8_t *record = ukshm__place(end, UKSHM__DESCRIPTOR, 0);
  memcpy(record + UKSHM__HEADER, body, sizeof body);
  ukshm__commit(end, UKSHM__DESCRIPTOR, UKSHM__TYPE_DESCRIPTOR, id);
}

static bool ukshm__lease_free(const ukshm__end *end) {
  return end->leases_out + end->chunks_open < UKSHM__SLOTS;
}

// Lends memory of our outbox. False: full as far as is known without looking at the peer's words.
static bool ukshm__lend(ukshm__end *end, uint32_t length, ukshm_open_loan *loan) {
  *loan = (ukshm_open_loan){.length = length, .room = length};
  if (length <= ukshm__inline_max(&end->out)) {
    uint8_t *record = ukshm__place(end, length, end->chunks_open * UKSHM__RESERVE);
    if (record == NULL) return false;
    end->inline_open = ukshm__record_bytes(length);
    loan->bytes = record + UKSHM__HEADER;
    return true;
  }
  uint32_t granules = (length + UKSHM__GRANULE - 1) / UKSHM__GRANULE;
  uint32_t flight = UKSHM__FLIGHT / UKSHM__GRANULE;
  if (!ukshm__lease_free(end)) return false;
  if (end->chunks >= 2 && end->granules_used + granules > flight) return false;
  if (ukshm__ring_free(end) < (end->chunks_open + 1) * UKSHM__RESERVE) return false;
  if (!ukshm__arena_take(end, granules, &loan->granule)) return false;
  end->chunks_open++;
  loan->granules = granules;
  loan->bytes = end->own + end->out.arena_offset + (size_t)loan->granule * UKSHM__GRANULE;
  return true;
}

// An open loan ends, sent or not.
static void ukshm__end_loan(ukshm__end *end, const ukshm_open_loan *loan, bool sent, uint32_t type,
                            uint32_t id) {
  uint32_t length = (uint32_t)loan->length;
  if (loan->granules == 0) {
    end->inline_open = 0;
    if (sent) ukshm__commit(end, length, type, id);
    return;
  }
  end->chunks_open--;
  if (!sent) {
    ukshm__arena_give(end, loan->granule, loan->granules);
    return;
  }
  uint32_t offset = end->out.arena_offset + loan->granule * UKSHM__GRANULE;
  ukshm__lease lease = {.granule = loan->granule, .granules = loan->granules};
  ukshm__commit_chunk(end, offset, length, 0, type, id, lease);
}

static void ukshm__publish(ukshm__end *end) {
  if (end->tail == end->published) return;
  end->published = end->tail;
  // RELEASE tail: the records come before it.
  ukshm__put(end->own, UKSHM__TAIL, end->tail);
  end->published_news = true;
}

// Looks at the peer's tail. False: nothing waits, or it lied.
static bool ukshm__look(ukshm__end *end) {
  if (end->frozen) return end->position != end->tail_seen;
  // ACQUIRE tail: the records before it are whole.
  uint32_t tail = ukshm__get(end->peer, UKSHM__TAIL);
  uint32_t ahead = tail - end->head_published;
  if ((tail & 7) != 0 || ahead > end->in.ring || ahead < end->tail_seen - end->head_published) {
    ukshm__lie(end, "its tail is not between the last one and a ring's length after our head");
    return false;
  }
  end->tail_seen = tail;
  return end->position != tail;
}

static void ukshm__publish_head(ukshm__end *end) {
  if (end->head == end->head_published) return;
  end->head_published = end->head;
  // RELEASE head: our reads of what lies before it are over.
  ukshm__put(end->own, UKSHM__HEAD, end->head);
  end->released_news = true;
}

// Not for every record: a sender that waits for space would come after each of them, and the two
// fight for the cache line. At once when nothing is left to read; see also ukshm_release.
static void ukshm__move_head(ukshm__end *end, uint32_t head) {
  end->head = head;
  if (head - end->head_published >= end->in.ring / 4 || head == end->tail_seen) {
    ukshm__publish_head(end);
  }
}

// The record at the position needs no memory any more: padding, or a descriptor that was read.
static void ukshm__pass(ukshm__end *end, uint32_t size) {
  end->position += size;
  if (end->ends_count == 0) {
    ukshm__move_head(end, end->position);
    return;
  }
  // It leaves together with the record before it.
  uint64_t last = end->ends_first + end->ends_count - 1;
  uint32_t *entry = &end->ends[last & (end->ends_capacity - 1)];
  *entry = end->position | (*entry & 1);
}

// Keeps the inline record at the position. False: no memory.
static bool ukshm__hold(ukshm__end *end, uint32_t size, uint64_t *serial) {
  if (end->ends_count == end->ends_capacity) {
    uint32_t capacity = end->ends_capacity == 0 ? 64 : end->ends_capacity * 2;
    uint32_t *ends = malloc(capacity * sizeof *ends);
    if (ends == NULL) return false;
    for (uint64_t i = end->ends_first; i < end->ends_first + end->ends_count; i++) {
      ends[i & (capacity - 1)] = end->ends[i & (end->ends_capacity - 1)];
    }
    free(end->ends);
    end->ends = ends;
    end->ends_capacity = capacity;
  }
  end->position += size;
  *serial = end->ends_first + end->ends_count++;
  end->ends[*serial & (end->ends_capacity - 1)] = end->position;
  end->inline_held++;
  return true;
}

static void ukshm__release_inline(ukshm__end *end, uint64_t serial) {
  if (serial - end->ends_first >= end->ends_count) return;
  uint32_t *entry = &end->ends[serial & (end->ends_capacity - 1)];
  if ((*entry & 1) != 0) return;
  *entry |= 1;
  end->inline_held--;
  uint32_t head = end->head;
  while (end->ends_count > 0) {
    uint32_t first = end->ends[end->ends_first & (end->ends_capacity - 1)];
    if ((first & 1) == 0) break;
    head = first & ~UINT32_C(1);
    end->ends_first++;
    end->ends_count--;
  }
  ukshm__move_head(end, head);
}

static ukshm__region *ukshm__find_region(ukshm__end *end, uint32_t number) {
  for (uint32_t i = 0; i < end->region_count; i++) {
    if (end->regions[i]->number == number) return end->regions[i];
  }
  return NULL;
}

// Reads a descriptor's body once and checks it. -1: it lies.
static int ukshm__describe(ukshm__end *end, const uint8_t *at, ukshm_message *message) {
  uint32_t body[6];
  for (size_t i = 0; i < 6; i++) body[i] = ukshm__once(at + i * 4);
  const uint8_t *base = end->peer;
  uint32_t start = end->in.arena_offset, total = end->in.total;
  if (body[4] != 0) {
    ukshm__region *region = ukshm__find_region(end, body[4]);
    if (region == NULL || region->base == NULL || region->dropped) {
      return ukshm__lie(end, "a message lies in a region that is not mapped");
    }
    message->region = region;
    base = region->base;
    start = 0;
    total = region->total;
  }
  if (body[0] < start || (uint64_t)body[0] + body[1] > total || body[2] >= UKSHM__SLOTS) {
    return ukshm__lie(end, "a message lies outside its region, or has an impossible lease");
  }
  if (end->leases_held >= UKSHM__SLOTS) return ukshm__lie(end, "more than 4096 chunks lent");
  message->bytes = base + body[0];
  message->length = body[1];
  message->offset = body[0];
  message->lease = body[2];
  message->generation = body[3];
  message->type = body[5];
  end->leases_held++;
  if (message->region != NULL) message->region->held++;
  return 0;
}

// A free number for a request; false: no memory, or too many.
static bool ukshm__slot_take(ukshm__end *end, uint32_t *id) {
  if (end->slot_free == end->slot_count) {
    uint32_t count = end->slot_count == 0 ? 16 : end->slot_count * 2;
    ukshm__slot *slots =
        count > UKSHM__REQUESTS ? NULL : realloc(end->slots, count * sizeof *slots);
    if (slots == NULL) return false;
    for (uint32_t i = end->slot_count; i < count; i++) {
      slots[i] = (ukshm__slot){.id = i, .next_free = i + 1};
    }
    end->slots = slots;
    end->slot_count = count;
  }
  ukshm__slot *slot = &end->slots[end->slot_free];
  end->slot_free = slot->next_free;
  slot->state = UKSHM__WAITING;
  *id = slot->id;
  end->unanswered++;
  return true;
}

static void ukshm__slot_give(ukshm__end *end, ukshm__slot *slot) {
  if (slot->state != UKSHM__ANSWERED) end->unanswered--;
  uint32_t number = slot->id % UKSHM__REQUESTS;
  *slot = (ukshm__slot){.id = slot->id + UKSHM__REQUESTS, .next_free = end->slot_free};
  end->slot_free = number;
}

// The request of this id; NULL: it is not under way.
static ukshm__slot *ukshm__slot_of(ukshm__end *end, uint32_t id) {
  uint32_t number = id % UKSHM__REQUESTS;
  if (number >= end->slot_count || end->slots[number].id != id) return NULL;
  return end->slots[number].state == UKSHM__FREE ? NULL : &end->slots[number];
}

// Takes a record's type apart. -1: it is reserved, or an answer to nothing.
static int ukshm__classify(ukshm__end *end, ukshm_message *message) {
  uint32_t type = message->type;
  if (type > UKSHM__FAILURE) return ukshm__lie(end, "a message of a reserved type");
  message->kind = type & ~(uint32_t)UKSHM__TYPE_MAX;
  message->type = type & UKSHM__TYPE_MAX;
  message->request = message->kind == UKSHM__REQUEST;
  if (message->kind < UKSHM__REPLY) return 1;
  const ukshm__slot *slot = ukshm__slot_of(end, message->id);
  if (slot != NULL && slot->state != UKSHM__ANSWERED) return 1;
  return ukshm__lie(end, "an answer to a request that was not asked, or was answered");
}

// In place of a lease number: a record of the ring; a copy of one.
enum { UKSHM__INLINE = UKSHM__SLOTS, UKSHM__COPIED };

// The next message that waits. 1: here it is; 0: none; -1: the peer lied; -2: no memory.
static int ukshm__next(ukshm__end *end, ukshm_message *message) {
  if (end->broken != NULL) return -1;
  for (;;) {
    if (end->position == end->tail_seen && !ukshm__look(end)) return end->broken == NULL ? 0 : -1;
    uint32_t at = end->position & (end->in.ring - 1);
    uint32_t rest = end->in.ring - at;
    if (end->tail_seen - end->position < rest) rest = end->tail_seen - end->position;
    const uint8_t *record = end->peer + UKSHM__RING + at;
    uint32_t header = ukshm__once(record);
    uint32_t length = header & 0xffff, type = header >> 16;
    uint32_t size = type == UKSHM__TYPE_PADDING ? length * 8 : ukshm__record_bytes(length);
    if (size > rest || size == 0 ||
        (type == UKSHM__TYPE_DESCRIPTOR && length != UKSHM__DESCRIPTOR)) {
      return ukshm__lie(end, "a record does not end before the tail or the ring's end");
    }
    if (type == UKSHM__TYPE_PADDING) {
      ukshm__pass(end, size);
      continue;
    }
    *message = (ukshm_message){.bytes = record + UKSHM__HEADER, .length = length, .type = type,
                               .id = ukshm__once(record + 4), .lease = UKSHM__INLINE};
    if (type == UKSHM__TYPE_DESCRIPTOR) {
      if (ukshm__describe(end, record + UKSHM__HEADER, message) < 0) return -1;
      ukshm__pass(end, size);
    } else if (!ukshm__hold(end, size, &message->serial)) {
      return -2;
    }
    return ukshm__classify(end, message);
  }
}

// ---- Names, users, memory -----------------------------------------------------------------------

typedef struct ukshm__address {
  socklen_t length;
  struct sockaddr_un sun;
} ukshm__address;

// Who is admitted: the users listed; none listed: our own.
typedef struct ukshm__policy {
  uint32_t count, uids[UKSHM__UIDS];
} ukshm__policy;

// "name" → abstract "ukshm/1/<uid>/name"; "a/path" → as it is, absolute where that fits, so that
// others who are told of it find it.
static int ukshm__address_of(const char *name, uint32_t uid, ukshm__address *address,
                             ukshm_error *error) {
  memset(address, 0, sizeof *address);
  address->sun.sun_family = AF_UNIX;
  char *path = address->sun.sun_path;
  size_t room = sizeof address->sun.sun_path;
  size_t base = offsetof(struct sockaddr_un, sun_path);
  bool abstract = name != NULL && strchr(name, '/') == NULL;
  size_t plain = name == NULL ? 0 : strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstu"
                                                 "vwxyz0123456789._-");
  if (name == NULL || *name == 0 || (abstract && name[plain] != 0)) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the name is '%s'; expected letters, "
                       "digits, '.', '_', '-'; or a path with '/'", name == NULL ? "" : name);
  }
  char front[PATH_MAX] = "";
  if (abstract) snprintf(front, sizeof front, "ukshm/1/%u/", (unsigned)uid);
  else if (*name != '/' && getcwd(front, sizeof front - 1) != NULL) strcat(front, "/");
  if (!abstract && strlen(front) + strlen(name) >= room) *front = 0;
  size_t length = strlen(front) + strlen(name);
  if (length >= room) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the name is too long: 107 bytes in all");
  }
  memcpy(path + abstract, front, strlen(front));
  memcpy(path + abstract + strlen(front), name, strlen(name));
  address->length = (socklen_t)(base + length + 1);   // + 1: the 0 before or behind it
  return 0;
}

static int ukshm__policy_of(const uint32_t *uids, uint32_t count, ukshm__policy *policy,
                            ukshm_error *error) {
  if (count > UKSHM__UIDS || (count > 0 && uids == NULL)) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "uid_count is %u; expected 0 to 16",
                       count);
  }
  *policy = (ukshm__policy){.count = count};
  if (count > 0) memcpy(policy->uids, uids, count * sizeof *uids);
  return 0;
}

static bool ukshm__admits(const ukshm__policy *policy, uint32_t uid) {
  // In a user namespace all users that it does not map look like this one: it equals nobody.
  unsigned overflow = 65534;
  FILE *file = fopen("/proc/sys/kernel/overflowuid", "re");
  if (file != NULL) {
    if (fscanf(file, "%u", &overflow) != 1) overflow = 65534;
    fclose(file);
  }
  if (uid == overflow) return false;
  if (policy->count == 0) return uid == geteuid();
  for (uint32_t i = 0; i < policy->count; i++) {
    if (policy->uids[i] == uid) return true;
  }
  return false;
}

static int ukshm__socket(void) {
  return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

// From a file descriptor of an accepted or connected socket.
static int ukshm__credentials(int fd, struct ucred *peer) {
  socklen_t length = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &length);
}

static void ukshm__close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static size_t ukshm__outbox_bytes(const ukshm__sizes *sizes, bool huge) {
  size_t unit = huge ? 2 << 20 : 1;
  return (sizes->total + unit - 1) / unit * unit;
}

// A memfd with all its pages; negative: errno.
static int ukshm__make_outbox(const ukshm__sizes *sizes) {
  int fd = memfd_create("ukshm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return fd;
  int result = ftruncate(fd, (off_t)sizes->total);
  while (result == 0 && (result = fallocate(fd, 0, 0, (off_t)sizes->total)) < 0 && errno == EINTR) {
    result = 0;
  }
  if (result == 0) return fd;
  int number = errno;
  close(fd);
  errno = number;
  return -1;
}

static uint8_t *ukshm__map(int fd, size_t bytes, int protection) {
  void *memory = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return NULL;
  madvise(memory, bytes, MADV_DONTFORK);
  return memory;
}

// Maps our own outbox and shuts it: from now on nobody can map it writable.
static uint8_t *ukshm__map_own(int fd, size_t bytes) {
  uint8_t *memory = ukshm__map(fd, bytes, PROT_READ | PROT_WRITE);
  if (memory == NULL || fcntl(fd, F_ADD_SEALS, UKSHM__SEALS) == 0) return memory;
  munmap(memory, bytes);
  return NULL;
}

// Checks a foreign descriptor; on a helper thread, because all but F_GET_SEALS may hang.
static int ukshm__check_outbox(int fd, const ukshm__sizes *sizes, bool huge, bool sealed,
                               ukshm_error *error) {
  int seals = fcntl(fd, F_GET_SEALS);
  int wanted = sealed ? UKSHM__SEALS : UKSHM__SIZE_SEALS;
  if (seals < 0 || (seals & wanted) != wanted ||
      (!sealed && (seals & (F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)) {
    return ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "what the listener passed has the seals "
                       "%d; at least %d expected", seals, wanted);
  }
  struct stat status;
  size_t bytes = ukshm__outbox_bytes(sizes, huge);
  if (fstat(fd, &status) < 0 || (uint64_t)status.st_size != bytes ||
      (uint64_t)status.st_blocks * 512 < bytes) {
    return ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "the memfd that the listener passed is "
                       "sparse, or has not the size named");
  }
  return 0;
}

// ---- Reaching a listener; a meeting from the connector's side -----------------------------------
//
// Whoever receives a descriptor may hang on it, in a system call that no signal ends. So a meeting
// runs on a thread of its own from the first byte on, and whoever waits for it can give up: then
// the thread frees what there is when, or if ever, it gets free.

typedef struct ukshm__meet {
  // What is wanted; written before the thread starts.
  uint32_t kind, handshake_ms;
  ukshm__address address;        // import: still to be reached
  ukshm__policy policy;
  uint32_t owner;                // import: who it must be
  uint8_t hello[UKSHM__HELLO_BYTES];
  // What came of it.
  int socket, fds[2];            // ours is fds[1]
  struct ucred peer;
  ukshm__welcome welcome;
  ukshm__sizes theirs, ours;
  uint8_t *peer_base, *own_base;
  size_t peer_bytes, own_bytes;
  int result;
  ukshm_error error;
  // Between the two threads.
  pthread_mutex_t lock;
  int event;                     // an eventfd of whoever waits
  bool checking, done, abandoned;
} ukshm__meet;

static int ukshm__threads;   // helper threads that run or hang: bounded

// Connects, and checks whose listener it is before anything is sent. The socket, or negative.
static int ukshm__reach(const ukshm__address *address, const ukshm__policy *policy, int wait_ms,
                        int busy_ms, struct ucred *peer, ukshm_error *error) {
  int64_t absent = ukshm__deadline(wait_ms), busy = ukshm__deadline(busy_ms);
  for (int pause_ms = 2;; pause_ms = pause_ms < 50 ? pause_ms * 2 : 100) {
    int fd = ukshm__socket();
    if (fd < 0) return ukshm__fail_call(error, "socket");
    if (connect(fd, (const struct sockaddr *)&address->sun, address->length) == 0) {
      if (ukshm__credentials(fd, peer) == 0 && ukshm__admits(policy, peer->uid)) return fd;
      close(fd);
      return ukshm__fail(error, UKSHM_WRONG_OWNER, "the listener belongs to process %d of user "
                         "%u, who is not the owner expected: choose another name, or admit it",
                         (int)peer->pid, (unsigned)peer->uid);
    }
    int number = errno;
    close(fd);
    // A full backlog is EAGAIN, and poll does not wait for it.
    bool full = number == EAGAIN || number == EINTR;
    if (!full && number != ENOENT && number != ECONNREFUSED) {
      errno = number;
      int result = ukshm__fail_call(error, "connect");
      if (number != EACCES && number != EPERM) return result;
      return ukshm__fail(error, UKSHM_ACCESS_DENIED, "the path may not be connected to");
    }
    if (ukshm__now_ms() >= (full ? busy : absent)) {
      if (full) return ukshm__fail(error, UKSHM_TIMEOUT, "too many connect there at once");
      return ukshm__fail(error, UKSHM_NO_LISTENER, "nobody listens there: start the listener "
                         "first, or connect with wait_ms");
    }
    poll(NULL, 0, pause_ms);
  }
}

// Receives exactly `size` bytes; with the first of them up to 4 descriptors, if `fds` is not NULL.
static int ukshm__receive_exactly(int fd, uint8_t *bytes, size_t size, int *fds, int *fd_count,
                                  int64_t deadline, ukshm_error *error) {
  for (size_t have = 0; have < size;) {
    union {
      struct cmsghdr header;
      char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec part = {bytes + have, size - have};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (have == 0 && fds != NULL) {
      message.msg_control = &control;
      message.msg_controllen = sizeof control;
    }
    ssize_t count = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count > 0) {
      struct cmsghdr *c = message.msg_control == NULL ? NULL : CMSG_FIRSTHDR(&message);
      for (; c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        *fd_count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), (size_t)*fd_count * sizeof(int));
      }
      have += (size_t)count;
    } else if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
      if (!ukshm__ready(fd, POLLIN, deadline)) {
        return ukshm__fail(error, UKSHM_TIMEOUT, "the listener did not answer in time");
      }
    } else {
      return ukshm__fail(error, UKSHM_PEER_GONE, "the listener hung up in the meeting");
    }
  }
  return 0;
}

// Checks and maps what came with the WELCOME.
static int ukshm__take_outboxes(ukshm__meet *meet, ukshm_error *error) {
  bool both = meet->kind == UKSHM__CHANNEL, huge = (meet->welcome.flags & UKSHM__HUGE_PAGES) != 0;
  int result =
      ukshm__check_sizes(&meet->welcome, both, &meet->theirs, &meet->ours, error);
  if (result == 0) result = ukshm__check_outbox(meet->fds[0], &meet->theirs, huge, true, error);
  if (result == 0 && both) {
    result = ukshm__check_outbox(meet->fds[1], &meet->ours, huge, false, error);
  }
  if (result < 0) return result;
  meet->peer_bytes = ukshm__outbox_bytes(&meet->theirs, huge);
  meet->peer_base = ukshm__map(meet->fds[0], meet->peer_bytes, PROT_READ);
  if (meet->peer_base == NULL) return ukshm__fail_call(error, "mmap");
  ukshm__close_fd(&meet->fds[0]);
  if (!both) return 0;
  meet->own_bytes = ukshm__outbox_bytes(&meet->ours, huge);
  meet->own_base = ukshm__map_own(meet->fds[1], meet->own_bytes);
  if (meet->own_base == NULL) return ukshm__fail_call(error, "mapping our outbox");
  return 0;
}

// The meeting itself.
static int ukshm__meet_now(ukshm__meet *meet, ukshm_error *error) {
  int busy_ms = (int)meet->handshake_ms;
  if (meet->socket < 0) {
    meet->socket = ukshm__reach(&meet->address, &meet->policy, 0, busy_ms, &meet->peer, error);
    if (meet->socket < 0) return meet->socket;
    if (meet->peer.uid != meet->owner) return UKSHM_WRONG_OWNER;
  }
  int64_t deadline = ukshm__deadline(busy_ms);
  // A fresh socket takes it whole. A listener that refused us already has hung up, and told why.
  send(meet->socket, meet->hello, sizeof meet->hello, MSG_DONTWAIT | MSG_NOSIGNAL);
  uint8_t bytes[UKSHM__WELCOME_BYTES];
  int fds[4] = {-1, -1, -1, -1}, fd_count = 0;
  int result = ukshm__receive_exactly(meet->socket, bytes, sizeof bytes, fds, &fd_count, deadline,
                                      error);
  pthread_mutex_lock(&meet->lock);
  meet->checking = true;
  pthread_mutex_unlock(&meet->lock);
  if (result == 0) result = ukshm__decode_welcome(bytes, &meet->welcome, error);
  if (result == 0 && fd_count != (meet->kind == UKSHM__CHANNEL ? 2 : 1)) {
    result = ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "the listener passed %d descriptors",
                         fd_count);
  }
  for (int i = 0; i < 4; i++) {
    if (result == 0 && i < 2) meet->fds[i] = fds[i];
    else if (fds[i] >= 0) close(fds[i]);
  }
  if (result == 0) result = ukshm__take_outboxes(meet, error);
  if (result < 0 || meet->kind != UKSHM__CHANNEL) return result;
  ukshm__encode_ack(bytes);
  send(meet->socket, bytes, UKSHM__ACK_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
  return 0;
}

static void ukshm__meet_free(ukshm__meet *meet) {
  if (meet->peer_base != NULL) munmap(meet->peer_base, meet->peer_bytes);
  if (meet->own_base != NULL) munmap(meet->own_base, meet->own_bytes);
  ukshm__close_fd(&meet->fds[0]);
  ukshm__close_fd(&meet->fds[1]);
  ukshm__close_fd(&meet->socket);
  pthread_mutex_destroy(&meet->lock);
  free(meet);
}

static void *ukshm__meet_run(void *argument) {
  ukshm__meet *meet = argument;
  meet->result = ukshm__meet_now(meet, &meet->error);
  if (meet->result < 0) {
    // Closing a foreign descriptor may hang as well: here, not where the result is taken.
    ukshm__close_fd(&meet->fds[0]);
    ukshm__close_fd(&meet->fds[1]);
  }
  __atomic_sub_fetch(&ukshm__threads, 1, __ATOMIC_RELAXED);
  pthread_mutex_lock(&meet->lock);
  meet->done = true;
  bool abandoned = meet->abandoned;
  if (!abandoned) eventfd_write(meet->event, 1);
  pthread_mutex_unlock(&meet->lock);
  if (abandoned) ukshm__meet_free(meet);
  return NULL;
}

static ukshm__meet *ukshm__meet_new(uint32_t kind, int event) {
  ukshm__meet *meet = calloc(1, sizeof *meet);
  if (meet == NULL) return NULL;
  meet->kind = kind;
  meet->event = event;
  meet->socket = meet->fds[0] = meet->fds[1] = -1;
  pthread_mutex_init(&meet->lock, NULL);
  return meet;
}

// A thread that no signal of the program's disturbs. 0, or an errno.
static int ukshm__thread(void *(*run)(void *), void *argument, pthread_t *thread) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int number = pthread_create(thread, NULL, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return number;
}

// Starts the meeting; false, and `meet` is freed, where there are no more threads.
static bool ukshm__meet_start(ukshm__meet *meet) {
  pthread_t thread;
  if (__atomic_add_fetch(&ukshm__threads, 1, __ATOMIC_RELAXED) <= UKSHM__MEETINGS &&
      ukshm__thread(ukshm__meet_run, meet, &thread) == 0) {
    pthread_detach(thread);
    return true;
  }
  __atomic_sub_fetch(&ukshm__threads, 1, __ATOMIC_RELAXED);
  ukshm__meet_free(meet);
  return false;
}

static bool ukshm__meet_is(ukshm__meet *meet, const bool *what) {
  pthread_mutex_lock(&meet->lock);
  bool is = *what;
  pthread_mutex_unlock(&meet->lock);
  return is;
}

// Gives up a meeting, or what is left of a finished one.
static void ukshm__meet_abandon(ukshm__meet *meet) {
  pthread_mutex_lock(&meet->lock);
  meet->abandoned = true;
  bool done = meet->done;
  pthread_mutex_unlock(&meet->lock);
  if (done) ukshm__meet_free(meet);
}

// ---- Channels: sockets, frames, doorbells -------------------------------------------------------

struct ukshm_channel {
  ukshm__end end;
  int socket, pidfd;
  int poll_fd;                  // an epoll of all that can wake us: socket, pidfd, event
  int event;                    // an eventfd: an import of ours is finished; -1: never needed
  int own_fd;                   // our outbox, for those who import it
  size_t own_bytes, peer_bytes;
  int32_t peer_pid;
  uint32_t peer_uid;
  bool peer_cannot_fence, made_here, closing, answered;
  int ended;                    // 0, or why
  int64_t spin_ns, spin_now_ns;   // how long a wait looks at most; and now, by its success
  int64_t served_ms;
  uint32_t asleep_records, asleep_space;   // our sleep words
  uint32_t rung_records, rung_space;       // the peer's, as we last rang for them
  ukshm_channel *group;         // a circle of the channels between which messages are forwarded
  ukshm__policy policy;
  // Where a third process can import the peer's outbox; address_length 0: nowhere.
  uint8_t peer_token[8];
  uint32_t address_length;
  uint8_t address[UKSHM__ADDRESS];
  ukshm__export *exports;       // what the peer maps at our wish
  uint32_t last_number;
  ukshm__aside *aside, **aside_last;   // messages that came while answers were waited for
  ukshm__aside *copies;         // of these, small ones that the program holds
  size_t aside_bytes;           // copied out of the ring
  struct ukshm__refusal *refusals;     // failures for which there was no space yet
  ukshm__frames frames;
  uint8_t *queue;               // frames that the socket did not take yet
  size_t queued;
  ukshm_listener *listener;     // through which our outbox can be imported, under `token`
  ukshm_channel *next;          // of that listener
  ukshm_channel *next_ready;    // of its queue for ukshm_accept
  uint8_t token[8];
  ukshm_channel_stats stats;
};

enum { UKSHM__QUEUE_MAX = 16384 };
static void ukshm__end_channel(ukshm_channel *c, int why);
static void ukshm__unregister(ukshm_channel *c);

static void ukshm__watch(ukshm_channel *c, int operation, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data = {.fd = fd}};
  if (fd >= 0) epoll_ctl(c->poll_fd, operation, fd, &event);
}

static void ukshm__flush(ukshm_channel *c) {
  while (c->queued > 0) {
    ssize_t count = send(c->socket, c->queue, c->queued, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count <= 0) return;   // full; or a hang-up, which reading tells
    c->queued -= (size_t)count;
    memmove(c->queue, c->queue + count, c->queued);
  }
  ukshm__watch(c, EPOLL_CTL_MOD, c->socket, EPOLLIN | EPOLLRDHUP);
}

// Sends a frame now, or as soon as the socket takes it.
static void ukshm__send_frame(ukshm_channel *c, const uint8_t *bytes, size_t size) {
  if (c->ended) return;
  ssize_t sent = 0;
  if (c->queued == 0) {
    sent = send(c->socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) sent = 0;
  }
  size_t rest = size - (size_t)sent;
  // A RING that finds the socket full is not repeated: the peer has unread bytes, and looks.
  if (rest == 0 || (size == 1 && c->queued == 0)) return;
  if (c->queue == NULL) c->queue = malloc(UKSHM__QUEUE_MAX);
  if (c->queue == NULL || c->queued + rest > UKSHM__QUEUE_MAX) {
    ukshm__lie(&c->end, "it does not read its socket");
    ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
    return;
  }
  memcpy(c->queue + c->queued, bytes + sent, rest);
  c->queued += rest;
  ukshm__watch(c, EPOLL_CTL_MOD, c->socket, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
}

static void ukshm__send_numbers(ukshm_channel *c, uint8_t type, uint32_t number, uint32_t value) {
  uint8_t bytes[9] = {type};
  ukshm__set32(bytes + 1, number);
  ukshm__set32(bytes + 5, value);
  ukshm__send_frame(c, bytes, type == UKSHM__F_DROP ? 5 : 9);
}

// Rings if the peer sleeps for what we have just done, once for each of its sleeps.
static void ukshm__ring(ukshm_channel *c) {
  ukshm__end *end = &c->end;
  if ((!end->published_news && !end->released_news) || c->ended) return;
  // SEQ_CST: our cursors come before we look whether the peer sleeps; it announces its sleep
  // before it looks at our cursors once more. One of the two sees the other.
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  bool due = c->peer_cannot_fence;
  if (end->published_news) {
    uint32_t asleep = ukshm__get(end->peer, UKSHM__ASLEEP_RECORDS);
    if ((asleep & 1) != 0 && asleep != c->rung_records) due = true;
    c->rung_records = asleep;
  }
  if (end->released_news) {
    uint32_t asleep = ukshm__get(end->peer, UKSHM__ASLEEP_SPACE);
    if ((asleep & 1) != 0 && asleep != c->rung_space) due = true;
    c->rung_space = asleep;
  }
  end->published_news = end->released_news = false;
  if (!due) return;
  c->stats.rings_sent++;
  ukshm__send_frame(c, (const uint8_t[]){UKSHM__F_RING}, 1);
}

static bool ukshm__peer_closing(const ukshm_channel *c) {
  // ACQUIRE state: the peer's last tail comes before it.
  return ukshm__get(c->end.peer, UKSHM__STATE) != 0;
}

// The channel is over. What the peer published before still counts, unless it lied.
static void ukshm__end_channel(ukshm_channel *c, int why) {
  if (c->ended && c->end.broken != NULL) c->ended = UKSHM_PEER_MISBEHAVED;
  if (c->ended) return;
  if (why != UKSHM_PEER_MISBEHAVED) {
    if (ukshm__peer_closing(c)) why = UKSHM_PEER_CLOSED;
    ukshm__look(&c->end);
    ukshm__collect(&c->end);
  }
  c->ended = c->end.broken != NULL ? UKSHM_PEER_MISBEHAVED : why;
  c->end.frozen = true;
  // A child of ours may have a copy of the socket: epoll would go on watching that.
  ukshm__watch(c, EPOLL_CTL_DEL, c->socket, 0);
  ukshm__watch(c, EPOLL_CTL_DEL, c->pidfd, 0);
  ukshm__close_fd(&c->socket);
  ukshm__close_fd(&c->pidfd);
  ukshm__revoke_forwards(&c->end);
}

// T of a forward O → M → T: M asks us to map O's outbox. A thread does it, see ukshm__meet.
static void ukshm__on_import(ukshm_channel *c, const uint8_t *frame) {
  uint32_t number = ukshm__get32(frame + 1);
  if (ukshm__find_region(&c->end, number) != NULL) {
    ukshm__lie(&c->end, "it had us import one region twice");
    return;
  }
  if (c->event < 0) {
    c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ukshm__watch(c, EPOLL_CTL_ADD, c->event, EPOLLIN);
  }
  ukshm__region *region = calloc(1, sizeof *region);
  ukshm__meet *meet = c->event < 0 || c->closing || c->end.region_count == UKSHM__REGIONS
                          ? NULL : ukshm__meet_new(UKSHM__IMPORT, c->event);
  if (region != NULL && meet != NULL) {
    ukshm__hello hello = {.kind = UKSHM__IMPORT};
    memcpy(hello.token, frame + 5, 8);
    ukshm__encode_hello(&hello, meet->hello);
    meet->owner = ukshm__get32(frame + 13);
    meet->policy = c->policy;
    meet->handshake_ms = 5000;
    meet->address.length = ukshm__get32(frame + 17);
    memcpy(&meet->address.sun, frame + 21, meet->address.length);
    *region = (ukshm__region){.number = number, .meet = meet};
    if (meet->address.sun.sun_family == AF_UNIX && ukshm__meet_start(meet)) {
      c->end.regions[c->end.region_count++] = region;
      return;
    }
  }
  free(region);
  ukshm__send_numbers(c, UKSHM__F_IMPORTED, number, 0);
}

static void ukshm__region_free(ukshm__end *end, ukshm__region *region) {
  for (uint32_t i = 0; i < end->region_count; i++) {
    if (end->regions[i] != region) continue;
    end->regions[i] = end->regions[--end->region_count];
    break;
  }
  if (region->meet != NULL) ukshm__meet_abandon(region->meet);
  if (region->base != NULL) munmap((void *)(uintptr_t)region->base, region->mapped);
  free(region);
}

// An import is finished: the peer is told.
static void ukshm__on_event(ukshm_channel *c) {
  eventfd_t count;
  eventfd_read(c->event, &count);
  for (uint32_t i = c->end.region_count; i-- > 0;) {
    ukshm__region *region = c->end.regions[i];
    ukshm__meet *meet = region->meet;
    if (meet == NULL || !ukshm__meet_is(meet, &meet->done)) continue;
    uint32_t number = region->number;
    region->base = meet->peer_base;
    region->mapped = meet->peer_bytes;
    region->total = meet->theirs.total;
    meet->peer_base = NULL;
    region->meet = NULL;
    if (meet->result < 0) ukshm__region_free(&c->end, region);
    ukshm__send_numbers(c, UKSHM__F_IMPORTED, number, meet->result == 0);
    ukshm__meet_abandon(meet);
  }
}

static void ukshm__on_frame(ukshm_channel *c, const uint8_t *frame) {
  if (frame[0] == UKSHM__F_RING) return;   // whoever waits looks at the cursors anyway
  uint32_t number = ukshm__get32(frame + 1);
  if (frame[0] == UKSHM__F_IMPORT) {
    ukshm__on_import(c, frame);
  } else if (frame[0] == UKSHM__F_IMPORTED) {
    ukshm__export *export = c->exports;
    while (export != NULL && export->number != number) export = export->next;
    if (export == NULL || export->state != UKSHM__ASKED) {
      ukshm__lie(&c->end, "it imported a region that it was not asked to");
      return;
    }
    export->state = ukshm__get32(frame + 5) == 1 ? UKSHM__MAPPED : UKSHM__REFUSED;
    c->answered = true;
  } else {
    ukshm__region *region = ukshm__find_region(&c->end, number);
    if (region != NULL) region->dropped = true;
    if (region != NULL && region->held == 0) ukshm__region_free(&c->end, region);
  }
}

static void ukshm__read_socket(ukshm_channel *c) {
  uint8_t bytes[1024];
  // A bounded share: a peer that floods us must not keep us from the rest.
  for (int round = 0; round < 4 && !c->ended; round++) {
    ssize_t got = recv(c->socket, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      ukshm__end_channel(c, UKSHM_PEER_GONE);
      return;
    }
    const uint8_t *at = bytes;
    size_t count = (size_t)got;
    int result;
    while ((result = ukshm__next_frame(&c->frames, &at, &count)) == 1 && !c->ended) {
      ukshm__on_frame(c, c->frames.frame);
    }
    if (result < 0) ukshm__lie(&c->end, "what it sent is no frame");
    if (c->end.broken != NULL) ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
  }
}

// Handles whatever woke the channel. Never blocks.
static void ukshm__serve(ukshm_channel *c) {
  struct epoll_event events[3];
  int count = epoll_wait(c->poll_fd, events, 3, 0);
  bool dead = false;
  for (int i = 0; i < count && !c->ended; i++) {
    int fd = events[i].data.fd;
    if (fd == c->event) ukshm__on_event(c);
    else if (fd == c->pidfd) dead = true;
    else if ((events[i].events & EPOLLOUT) != 0) ukshm__flush(c);
    if (fd == c->socket && (events[i].events & ~(uint32_t)EPOLLOUT) != 0) ukshm__read_socket(c);
  }
  // What the dead one sent before is still in the socket.
  if (dead) ukshm__read_socket(c);
  if (dead) ukshm__end_channel(c, UKSHM_PEER_GONE);
}

typedef struct ukshm__refusal {
  struct ukshm__refusal *next;
  uint32_t id, length;
  uint8_t bytes[];
} ukshm__refusal;

// Sends the failures that found no space before.
static void ukshm__send_refusals(ukshm_channel *c) {
  while (c->refusals != NULL && !c->ended && !c->closing && c->end.inline_open == 0) {
    ukshm__refusal *refusal = c->refusals;
    ukshm_open_loan loan;
    if (!ukshm__lend(&c->end, refusal->length, &loan)) return;
    memcpy(loan.bytes, refusal->bytes, refusal->length);
    ukshm__end_loan(&c->end, &loan, true, UKSHM__FAILURE, refusal->id);
    ukshm__publish(&c->end);
    c->refusals = refusal->next;
    free(refusal);
  }
}

static void ukshm__export_free(ukshm_channel *c, ukshm__export *export) {
  ukshm__export **link = &c->exports;
  while (*link != export) link = &(*link)->next;
  *link = export->next;
  free(export);
}

// Tells the peer of regions from which nothing more can come.
static void ukshm__drop_exports(ukshm_channel *c) {
  for (ukshm__export *export = c->exports, *next; export != NULL; export = next) {
    next = export->next;
    if (export->source != NULL || export->plot != NULL) continue;
    if (export->lent > 0 || export->state == UKSHM__ASKED) continue;
    if (export->state == UKSHM__MAPPED) {
      ukshm__send_numbers(c, UKSHM__F_DROP, export->number, 0);
    }
    ukshm__export_free(c, export);
  }
}

// What every call does for all channels of the group: collects releases, and passes them on. With
// `sockets` also what the peers ask for; a lie ends its channel only. Never blocks.
static void ukshm__turn(ukshm_channel *c, bool sockets) {
  ukshm_channel *m = c;
  do {
    if (!m->ended && sockets) ukshm__serve(m);
    if (!m->ended && ukshm__collect(&m->end) < 0) ukshm__end_channel(m, UKSHM_PEER_MISBEHAVED);
    if (m->exports != NULL) ukshm__drop_exports(m);
    if (m->refusals != NULL) ukshm__send_refusals(m);
    m = m->group;
  } while (m != c);
  do {
    if (sockets) ukshm__publish(&m->end);
    if (sockets) ukshm__publish_head(&m->end);
    ukshm__ring(m);
    m = m->group;
  } while (m != c);
  if (sockets) c->served_ms = ukshm__nanos(CLOCK_MONOTONIC_COARSE) / 1000000;
}

// ---- Sleeping -----------------------------------------------------------------------------------

// A sleep word of ours: odd while we sleep. SEQ_CST on the way down, see ukshm__ring.
static void ukshm__announce(ukshm_channel *c, uint32_t *word, uint32_t offset, bool asleep) {
  if (!asleep && (*word & 1) == 0) return;
  *word = asleep ? (*word + 1) | 1 : *word + 1;
  ukshm__put(c->end.own, offset, *word);
  if (asleep) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void ukshm__awake(ukshm_channel *c) {
  ukshm__announce(c, &c->asleep_records, UKSHM__ASLEEP_RECORDS, false);
  ukshm__announce(c, &c->asleep_space, UKSHM__ASLEEP_SPACE, false);
}

// Whether a channel of the group waits for its peer to release something.
static bool ukshm__wants_space(const ukshm_channel *m, const ukshm_channel *c, unsigned what) {
  return (m == c && (what & UKSHM_SPACE) != 0) || m->end.forwards_out > 0 || m->refusals != NULL;
}

static void ukshm__asleep(ukshm_channel *c, unsigned what) {
  ukshm_channel *m = c;
  do {
    if (m == c && (what & UKSHM_MESSAGES) != 0) {
      ukshm__announce(m, &m->asleep_records, UKSHM__ASLEEP_RECORDS, true);
    }
    if (ukshm__wants_space(m, c, what)) {
      ukshm__announce(m, &m->asleep_space, UKSHM__ASLEEP_SPACE, true);
    }
    m = m->group;
  } while (m != c);
}

// Whether something has changed that a wait is for. Looks only.
static bool ukshm__news(const ukshm_channel *c, unsigned what) {
  if (c->ended || ukshm__peer_closing(c)) return true;
  if ((what & UKSHM_MESSAGES) != 0 && ukshm__get(c->end.peer, UKSHM__TAIL) != c->end.tail_seen) {
    return true;
  }
  const ukshm_channel *m = c;
  do {
    const ukshm__end *end = &m->end;
    if (ukshm__wants_space(m, c, what) &&
        (ukshm__get(end->peer, UKSHM__HEAD) != end->head_seen ||
         ukshm__get(end->peer, UKSHM__RELEASE_TAIL) != end->release_seen)) {
      return true;
    }
    m = m->group;
  } while (m != c);
  return false;
}

static void ukshm__pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Looks for a while before sleeping: shorter and shorter while that is of no use.
static bool ukshm__spin(ukshm_channel *c, unsigned what) {
  if (c->spin_ns <= 0) return false;
  int64_t end = ukshm__nanos(CLOCK_MONOTONIC) + c->spin_now_ns;
  do {
    for (int i = 0; i < 32; i++) {
      if (ukshm__news(c, what)) {
        c->spin_now_ns = c->spin_now_ns * 2 < c->spin_ns ? c->spin_now_ns * 2 : c->spin_ns;
        return true;
      }
      ukshm__pause();
    }
  } while (ukshm__nanos(CLOCK_MONOTONIC) < end);
  c->spin_now_ns = c->spin_now_ns / 2 > c->spin_ns / 32 ? c->spin_now_ns / 2 : c->spin_ns / 32;
  return false;
}

// One step of a wait: returns 0 when the caller should try again, UKSHM_TIMEOUT when the time is
// over. `*deadline` is 0 before the first step. Publishes, and serves all channels of the group.
static int ukshm__wait(ukshm_channel *c, unsigned what, int timeout_ms, int64_t *deadline) {
  uint32_t head = c->end.head_seen, released = c->end.release_seen;
  c->answered = false;
  ukshm__publish(&c->end);
  ukshm__publish_head(&c->end);
  ukshm__ring(c);
  // Before the first system call: what a busy peer does next is there sooner.
  if (timeout_ms != 0 && ukshm__spin(c, what)) {
    // The news may be releases of what was forwarded: taken in, or they stay news for ever.
    ukshm__turn(c, false);
    return 0;
  }
  ukshm__turn(c, true);
  // What the turn itself took in was not there when the caller tried.
  bool freed = head != c->end.head_seen || released != c->end.release_seen;
  if (c->answered || ((what & UKSHM_SPACE) != 0 && freed) || ukshm__news(c, what)) return 0;
  if (timeout_ms == 0) return UKSHM_TIMEOUT;
  if (*deadline == 0) *deadline = ukshm__deadline(timeout_ms);
  int left_ms = ukshm__left_ms(*deadline);
  if (left_ms == 0) return UKSHM_TIMEOUT;
  ukshm__asleep(c, what);
  struct pollfd fds[UKSHM__GROUP];
  nfds_t count = 0;
  ukshm_channel *m = c;
  do {
    fds[count++] = (struct pollfd){.fd = m->poll_fd, .events = POLLIN};
    m = m->group;
  } while (m != c);
  if (!ukshm__news(c, what)) {
    c->stats.sleeps++;
    poll(fds, count, left_ms);
  }
  do {
    ukshm__awake(m);
    m = m->group;
  } while (m != c);
  ukshm__turn(c, true);
  return 0;
}

// At the start of every call: we are awake, and now and then look at the sockets even if nothing
// makes us wait. The coarse clock costs a few nanoseconds.
static void ukshm__enter(ukshm_channel *c) {
  ukshm__awake(c);
  if (ukshm__nanos(CLOCK_MONOTONIC_COARSE) / 1000000 - c->served_ms >= 4) ukshm__turn(c, true);
  else if (c->group != c) ukshm__turn(c, false);
}

// Why nothing can be sent or received any more.
static int ukshm__ended(const ukshm_channel *c, ukshm_error *error) {
  int pid = c->peer_pid;
  if (c->ended == UKSHM_PEER_MISBEHAVED) {
    return ukshm__fail(error, c->ended, "process %d broke the protocol: %s; its channel has "
                       "been ended", pid, c->end.broken);
  }
  if (c->ended == UKSHM_NO_MEMORY) {
    return ukshm__fail(error, c->ended, "no memory to keep a message: the channel has been ended");
  }
  if (c->ended == UKSHM_PEER_GONE) {
    return ukshm__fail(error, c->ended, "process %d died or hung up without closing: connect "
                       "again", pid);
  }
  return ukshm__fail(error, UKSHM_PEER_CLOSED, "process %d has closed the channel", pid);
}

// ---- The listener -------------------------------------------------------------------------------
//
// A thread accepts and meets, so that a program that computes or waits elsewhere neither keeps
// connectors waiting nor those who import what is forwarded to them.
//
// A guest: HELLO → (channel: WELCOME →) ACK → handed to ukshm_accept. Other kinds: one answer.

typedef struct ukshm__guest {
  int socket;
  struct ucred peer;
  int64_t deadline;
  uint8_t bytes[UKSHM__HELLO_BYTES];
  size_t have;
  ukshm_channel *channel;   // once WELCOME was sent
  int their_fd;             // the connector's outbox
} ukshm__guest;

struct ukshm_listener {
  int socket;
  int stop, ready;             // eventfds: for the thread; for ukshm_accept, counting channels
  pthread_t thread;
  ukshm__address address;
  char *name;
  dev_t device;                // of a path's socket file, so that we remove our own only
  ino_t inode;
  ukshm_listen_options options;
  ukshm__policy policy;
  ukshm__guest guests[UKSHM__MEETINGS];   // the thread's
  uint32_t guest_count;
  bool breathe;                // no descriptors or memory to accept with: try later
  pthread_mutex_t lock;        // for what follows
  int references;              // channels, and 1 while it listens
  ukshm_channel *channels;     // that were made here, or can be imported here
  ukshm_channel *first_ready, **last_ready;
};

static void ukshm__listener_unreference(ukshm_listener *l) {
  pthread_mutex_lock(&l->lock);
  bool last = --l->references == 0;
  pthread_mutex_unlock(&l->lock);
  if (!last) return;
  pthread_mutex_destroy(&l->lock);
  free(l->name);
  free(l);
}

static void ukshm__register(ukshm_listener *l, ukshm_channel *c) {
  pthread_mutex_lock(&l->lock);
  c->listener = l;
  c->next = l->channels;
  l->channels = c;
  l->references++;
  pthread_mutex_unlock(&l->lock);
}

static void ukshm__unregister(ukshm_channel *c) {
  ukshm_listener *l = c->listener;
  if (l == NULL) return;
  pthread_mutex_lock(&l->lock);
  ukshm_channel **link = &l->channels;
  while (*link != c) link = &(*link)->next;
  *link = c->next;
  pthread_mutex_unlock(&l->lock);
  c->listener = NULL;
  ukshm__listener_unreference(l);
}

// Frees everything, in whatever state of the making.
static void ukshm__channel_free(ukshm_channel *c) {
  if (c == NULL) return;
  ukshm__unregister(c);
  while (c->end.region_count > 0) ukshm__region_free(&c->end, c->end.regions[0]);
  while (c->exports != NULL) ukshm__export_free(c, c->exports);
  if (c->end.own != NULL) munmap(c->end.own, c->own_bytes);
  if (c->end.peer != NULL) munmap((void *)(uintptr_t)c->end.peer, c->peer_bytes);
  ukshm__end_free(&c->end);
  ukshm__close_fd(&c->socket);
  ukshm__close_fd(&c->pidfd);
  ukshm__close_fd(&c->poll_fd);
  ukshm__close_fd(&c->event);
  ukshm__close_fd(&c->own_fd);
  *c->aside_last = c->copies;
  for (ukshm__aside *aside = c->aside, *next; aside != NULL; aside = next) {
    next = aside->next;
    free(aside);
  }
  for (ukshm__refusal *refusal = c->refusals, *next; refusal != NULL; refusal = next) {
    next = refusal->next;
    free(refusal);
  }
  free(c->queue);
  free(c);
}

static ukshm_channel *ukshm__channel_new(const struct ucred *peer, int spin_us) {
  ukshm_channel *c = calloc(1, sizeof *c);
  if (c == NULL) return NULL;
  c->socket = c->pidfd = c->poll_fd = c->event = c->own_fd = -1;
  c->group = c;
  c->aside_last = &c->aside;
  c->peer_pid = peer->pid;
  c->peer_uid = peer->uid;
  if (spin_us == 0) spin_us = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 50 : 0;
  c->spin_ns = c->spin_now_ns = (int64_t)spin_us * 1000;
  return c;
}

// With socket and mappings there: books, and what can wake us.
static bool ukshm__channel_start(ukshm_channel *c) {
  if (!ukshm__end_start(&c->end)) return false;
  c->poll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (c->poll_fd < 0) return false;
  // A dead peer whose child has the socket does not hang up: its pidfd tells.
  socklen_t length = sizeof c->pidfd;
  if (c->peer_pid != getpid() &&
      getsockopt(c->socket, SOL_SOCKET, SO_PEERPIDFD, &c->pidfd, &length) < 0) {
    c->pidfd = (int)syscall(SYS_pidfd_open, c->peer_pid, 0);
  }
  ukshm__watch(c, EPOLL_CTL_ADD, c->socket, EPOLLIN | EPOLLRDHUP);
  ukshm__watch(c, EPOLL_CTL_ADD, c->pidfd, EPOLLIN);
  return true;
}

// The sizes of a new channel; returns 0, or the status with which it is refused.
static uint32_t ukshm__agree(const ukshm_listen_options *options, const ukshm__hello *hello,
                             ukshm__sizes *ours, ukshm__sizes *theirs) {
  const uint32_t asked[] = {hello->receive_ring, hello->receive_arena, hello->send_ring,
                            hello->send_arena};
  uint32_t size[4];
  for (int i = 0; i < 4; i++) {
    uint32_t usual = i % 2 == 0 ? options->ring_bytes : options->arena_bytes;
    size[i] = asked[i] == UKSHM__AS_YOU_LIKE ? usual : asked[i];
  }
  if (!ukshm__layout(ours, size[0], size[1]) || !ukshm__layout(theirs, size[2], size[3])) {
    return UKSHM__MALFORMED;
  }
  uint32_t most = options->arena_bytes_max;
  uint32_t ring_most = most > options->ring_bytes ? most : options->ring_bytes;
  bool good = size[1] <= most && size[3] <= most && size[0] <= ring_most && size[2] <= ring_most;
  return good ? 0 : UKSHM__NO_LIMIT;
}

// Sends WELCOME, with up to two descriptors; 64 bytes fit into a fresh socket.
static bool ukshm__welcome_guest(const ukshm__guest *guest, const ukshm__welcome *welcome,
                                 const int *fds, size_t fd_count) {
  uint8_t bytes[UKSHM__WELCOME_BYTES];
  ukshm__encode_welcome(welcome, bytes);
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(2 * sizeof(int))];
  } control;
  struct iovec part = {bytes, sizeof bytes};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd_count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
  }
  return sendmsg(guest->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof bytes;
}

static void ukshm__refuse(const ukshm__guest *guest, uint32_t status) {
  ukshm__welcome_guest(guest, &(ukshm__welcome){.status = status}, NULL, 0);
}

// Answers an import: the outbox of that token, if it is there.
static void ukshm__share(ukshm_listener *l, const ukshm__guest *guest, const uint8_t *token) {
  pthread_mutex_lock(&l->lock);
  ukshm_channel *c = l->channels;
  while (c != NULL && (c->own_fd < 0 || memcmp(c->token, token, 8) != 0)) c = c->next;
  if (c != NULL) {
    bool huge = c->own_bytes != c->end.out.total;
    ukshm__welcome welcome = {.flags = huge ? UKSHM__HUGE_PAGES : 0, .ring = c->end.out.ring,
                              .arena = c->end.out.arena};
    memcpy(welcome.token, token, 8);
    ukshm__welcome_guest(guest, &welcome, &c->own_fd, 1);
  }
  pthread_mutex_unlock(&l->lock);
  if (c == NULL) ukshm__refuse(guest, UKSHM__NO_TOKEN);
}

// Answers "who are you": as JSON.
static void ukshm__tell(ukshm_listener *l, const ukshm__guest *guest) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (out == NULL) return;
  fputs("{\"name\":\"", out);
  for (const char *at = l->name; *at != 0; at++) {
    if (*at == '"' || *at == '\\' || (unsigned char)*at < 32) fprintf(out, "\\u%04x", *at);
    else fputc(*at, out);
  }
  fprintf(out, "\",\"kind\":\"%s\",\"pid\":%d,\"uid\":%u,\"channels\":[",
          strchr(l->name, '/') == NULL ? "abstract" : "path", (int)getpid(), (unsigned)geteuid());
  pthread_mutex_lock(&l->lock);
  const char *comma = "";
  for (ukshm_channel *c = l->channels; c != NULL; c = c->next) {
    const ukshm__end *end = &c->end;
    if (!c->made_here || end->peer == NULL) continue;
    uint32_t used = ukshm__get(end->own, UKSHM__TAIL) - ukshm__get(end->peer, UKSHM__HEAD);
    uint64_t chunks = __atomic_load_n(&end->granules_used, __ATOMIC_RELAXED);
    fprintf(out, "%s{\"peerPid\":%d,\"sharedBytes\":%zu,\"bytesInUse\":%llu}", comma, c->peer_pid,
            c->own_bytes + c->peer_bytes,
            (unsigned long long)(used + chunks * UKSHM__GRANULE));
    comma = ",";
  }
  pthread_mutex_unlock(&l->lock);
  fputs("]}", out);
  fclose(out);
  if (text == NULL) return;
  ukshm__welcome welcome = {.ring = (uint32_t)size};
  if (ukshm__welcome_guest(guest, &welcome, NULL, 0)) {
    send(guest->socket, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  free(text);
}

// Whether the listener's limits admit one more channel of so many bytes.
static bool ukshm__within_limits(ukshm_listener *l, uint32_t uid, uint64_t bytes) {
  uint32_t count = 0;
  pthread_mutex_lock(&l->lock);
  for (ukshm_channel *c = l->channels; c != NULL; c = c->next) {
    if (!c->made_here) continue;
    count++;
    if (c->peer_uid == uid) bytes += (uint64_t)c->end.out.total + c->end.in.total;
  }
  pthread_mutex_unlock(&l->lock);
  return count < l->options.channels_max && bytes <= l->options.user_bytes_max;
}

// Makes both outboxes and sends them. Returns 0, or the status with which the guest is refused.
static uint32_t ukshm__invite(ukshm_listener *l, ukshm__guest *guest, const ukshm__hello *hello) {
  ukshm__sizes ours, theirs;
  uint32_t status = ukshm__agree(&l->options, hello, &ours, &theirs);
  if (status != 0) return status;
  uint64_t bytes = (uint64_t)ours.total + theirs.total;
  if (!ukshm__within_limits(l, guest->peer.uid, bytes)) return UKSHM__NO_LIMIT;
  ukshm_channel *c = ukshm__channel_new(&guest->peer, l->options.spin_us);
  if (c == NULL) return UKSHM__NO_ROOM;
  guest->channel = c;
  c->made_here = true;
  c->end.out = ours;
  c->end.in = theirs;
  c->own_bytes = ours.total;
  c->peer_bytes = theirs.total;
  c->policy = l->policy;
  c->peer_cannot_fence = (hello->flags & UKSHM__CANNOT_FENCE) != 0;
  memcpy(c->peer_token, hello->token, 8);
  c->address_length = hello->address_length;
  memcpy(c->address, hello->address, hello->address_length);
  c->own_fd = ukshm__make_outbox(&ours);
  guest->their_fd = ukshm__make_outbox(&theirs);
  if (c->own_fd >= 0) c->end.own = ukshm__map_own(c->own_fd, c->own_bytes);
  if (c->end.own == NULL || guest->their_fd < 0 || getrandom(c->token, 8, 0) != 8 ||
      fcntl(guest->their_fd, F_ADD_SEALS, UKSHM__SIZE_SEALS) < 0) {
    return UKSHM__NO_ROOM;
  }
  ukshm__register(l, c);
  ukshm__welcome welcome = {.ring = ours.ring, .arena = ours.arena, .back_ring = theirs.ring,
                            .back_arena = theirs.arena};
  memcpy(welcome.token, c->token, 8);
  const int fds[] = {c->own_fd, guest->their_fd};
  return ukshm__welcome_guest(guest, &welcome, fds, 2) ? 0 : UKSHM__NO_ROOM;
}

// HELLO is there. False: this guest is done with.
static bool ukshm__greet(ukshm_listener *l, ukshm__guest *guest) {
  ukshm__hello hello;
  uint32_t status = ukshm__decode_hello(guest->bytes, &hello);
  if (status == 0 && hello.kind == UKSHM__CHANNEL) status = ukshm__invite(l, guest, &hello);
  guest->have = 0;
  if (status != 0) ukshm__refuse(guest, status);
  else if (hello.kind == UKSHM__IMPORT) ukshm__share(l, guest, hello.token);
  else if (hello.kind == UKSHM__INFO) ukshm__tell(l, guest);
  return status == 0 && hello.kind == UKSHM__CHANNEL;
}

// ACK is there: the connector has mapped and sealed its outbox, or says so. Hands the channel over.
static void ukshm__admit(ukshm_listener *l, ukshm__guest *guest) {
  ukshm_channel *c = guest->channel;
  if (!ukshm__is_ack(guest->bytes)) return;
  if ((fcntl(guest->their_fd, F_GET_SEALS) & UKSHM__SEALS) != UKSHM__SEALS) return;
  const uint8_t *peer = ukshm__map(guest->their_fd, c->peer_bytes, PROT_READ);
  if (peer == NULL) return;
  c->socket = guest->socket;
  guest->socket = -1;
  pthread_mutex_lock(&l->lock);
  c->end.peer = peer;
  bool good = ukshm__channel_start(c);
  if (good) {
    *l->last_ready = c;
    l->last_ready = &c->next_ready;
    guest->channel = NULL;
    eventfd_write(l->ready, 1);
  }
  pthread_mutex_unlock(&l->lock);
}

// Goes on with one guest. False: it is done with.
static bool ukshm__attend(ukshm_listener *l, ukshm__guest *guest) {
  size_t want = guest->channel == NULL ? UKSHM__HELLO_BYTES : UKSHM__ACK_BYTES;
  // Never more than that: frames may follow at once. No control buffer: no descriptors reach us.
  ssize_t got = recv(guest->socket, guest->bytes + guest->have, want - guest->have, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  guest->have += (size_t)got;
  if (guest->have < want) return true;
  if (want == UKSHM__HELLO_BYTES) return ukshm__greet(l, guest);
  ukshm__admit(l, guest);
  return false;
}

static void ukshm__dismiss(ukshm_listener *l, uint32_t index) {
  ukshm__guest *guest = &l->guests[index];
  ukshm__channel_free(guest->channel);
  ukshm__close_fd(&guest->socket);
  ukshm__close_fd(&guest->their_fd);
  *guest = l->guests[--l->guest_count];
}

static void ukshm__welcome_in(ukshm_listener *l) {
  ukshm__guest guest = {.their_fd = -1};
  guest.socket = accept4(l->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (guest.socket < 0) {
    l->breathe = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
    return;
  }
  setsockopt(guest.socket, SOL_SOCKET, SO_PASSRIGHTS, &(int){0}, sizeof(int));
  guest.deadline = ukshm__deadline(l->options.handshake_ms);
  int same = 0;
  bool known = ukshm__credentials(guest.socket, &guest.peer) == 0;
  for (uint32_t i = 0; i < l->guest_count; i++) {
    if (l->guests[i].peer.pid == guest.peer.pid) same++;
  }
  if (known && ukshm__admits(&l->policy, guest.peer.uid) && same < UKSHM__MEETINGS_EACH) {
    l->guests[l->guest_count++] = guest;
    return;
  }
  ukshm__refuse(&guest, same < UKSHM__MEETINGS_EACH ? UKSHM__NO_ACCESS : UKSHM__NO_LIMIT);
  close(guest.socket);
}

static void *ukshm__listener_run(void *argument) {
  ukshm_listener *l = argument;
  for (;;) {
    struct pollfd fds[UKSHM__MEETINGS + 2];
    int64_t first = l->breathe ? ukshm__deadline(100) : UKSHM__NEVER;
    bool full = l->breathe || l->guest_count == UKSHM__MEETINGS;
    uint32_t guests = l->guest_count;
    for (uint32_t i = 0; i < guests; i++) {
      fds[i] = (struct pollfd){.fd = l->guests[i].socket, .events = POLLIN};
      if (l->guests[i].deadline < first) first = l->guests[i].deadline;
    }
    fds[guests] = (struct pollfd){.fd = l->stop, .events = POLLIN};
    fds[guests + 1] = (struct pollfd){.fd = full ? -1 : l->socket, .events = POLLIN};
    l->breathe = false;
    if (poll(fds, guests + 2, ukshm__left_ms(first)) < 0) continue;
    if (fds[guests].revents != 0) break;
    int64_t now = ukshm__now_ms();
    for (uint32_t i = guests; i-- > 0;) {
      bool stays = fds[i].revents == 0 || ukshm__attend(l, &l->guests[i]);
      if (!stays || now >= l->guests[i].deadline) ukshm__dismiss(l, i);
    }
    if (fds[guests + 1].revents != 0) ukshm__welcome_in(l);
  }
  while (l->guest_count > 0) ukshm__dismiss(l, 0);
  return NULL;
}

// Who has the name: a process id, 0 where it is not known; -1: nobody (of a path, a socket file may
// be left over).
static int ukshm__occupant(const ukshm__address *address) {
  struct ucred peer = {.pid = 0};
  int fd = ukshm__socket();
  if (fd < 0) return 0;
  if (connect(fd, (const struct sockaddr *)&address->sun, address->length) == 0) {
    if (ukshm__credentials(fd, &peer) < 0) peer.pid = 0;
  } else if (errno == ECONNREFUSED || errno == ENOENT) {
    peer.pid = -1;
  }
  close(fd);
  return peer.pid;
}

// Binds and listens. A path's socket file outlives a killed listener: whoever finds nobody behind
// it removes it, under a lock on its folder, so that two cannot both take it over.
static int ukshm__take_name(ukshm_listener *l, ukshm_error *error) {
  const char *path = l->address.sun.sun_path;
  int folder = -1;
  if (*path != 0) {
    char name[sizeof l->address.sun.sun_path + 1];
    memcpy(name, path, sizeof l->address.sun.sun_path);
    name[sizeof name - 1] = 0;
    strrchr(name, '/')[1] = 0;
    folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // Anybody could hold the lock for ever: patience has an end.
    int64_t deadline = ukshm__deadline(5000);
    int locked = -1;
    while (folder >= 0 && (locked = flock(folder, LOCK_EX | LOCK_NB)) < 0 &&
           ukshm__now_ms() < deadline) {
      poll(NULL, 0, 1);
    }
    if (locked < 0) {
      ukshm__close_fd(&folder);
      return ukshm__fail_call(error, "locking the path's folder");
    }
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) &&
        ukshm__occupant(&l->address) < 0) {
      unlink(path);
    }
  }
  int result = 0;
  if (bind(l->socket, (const struct sockaddr *)&l->address.sun, l->address.length) < 0) {
    if (errno != EADDRINUSE) result = ukshm__fail_call(error, "bind");
    else result = ukshm__fail(error, UKSHM_NAME_IN_USE, "'%s' is taken by process %d",
                              l->name, ukshm__occupant(&l->address));
  } else if (listen(l->socket, 256) < 0) {
    result = ukshm__fail_call(error, "listen");
  } else if (*path != 0) {
    struct stat status = {.st_ino = 0};
    lstat(path, &status);
    l->device = status.st_dev;
    l->inode = status.st_ino;
  }
  ukshm__close_fd(&folder);
  return result;
}

// Fills in the defaults, and checks what was asked.
static int ukshm__listen_options(ukshm_listener *l, const ukshm_listen_options *asked,
                                 ukshm_error *error) {
  ukshm_listen_options o = asked == NULL ? (ukshm_listen_options){0} : *asked;
  ukshm__sizes sizes;
  if (o.ring_bytes == 0) o.ring_bytes = 256 << 10;
  if (o.arena_bytes == 0) o.arena_bytes = 4 << 20;
  else if (o.arena_bytes == UKSHM_NO_ARENA) o.arena_bytes = 0;
  if (o.arena_bytes_max == 0) o.arena_bytes_max = 64 << 20;
  else if (o.arena_bytes_max == UKSHM_NO_ARENA) o.arena_bytes_max = 0;
  if (o.arena_bytes_max < o.arena_bytes) o.arena_bytes_max = o.arena_bytes;
  if (o.channels_max == 0) o.channels_max = 1024;
  if (o.user_bytes_max == 0) o.user_bytes_max = UKSHM__MAX_BYTES;
  if (o.handshake_ms <= 0) o.handshake_ms = 5000;
  if (!ukshm__layout(&sizes, o.ring_bytes, o.arena_bytes)) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "ring_bytes is %u, arena_bytes %u; "
                       "expected a power of two from 4096, a multiple of 65536, up to 2^30",
                       o.ring_bytes, o.arena_bytes);
  }
  l->options = o;
  return ukshm__policy_of(o.uids, o.uid_count, &l->policy, error);
}

ukshm_listener *ukshm_listen(const char *name, const ukshm_listen_options *options,
                             ukshm_error *error) {
  ukshm_listener *l = calloc(1, sizeof *l);
  if (l == NULL || (l->name = strdup(name == NULL ? "" : name)) == NULL) {
    free(l);
    ukshm__fail(error, UKSHM_NO_MEMORY, "no memory for a listener");
    return NULL;
  }
  l->socket = l->stop = l->ready = -1;
  l->references = 1;
  l->last_ready = &l->first_ready;
  pthread_mutex_init(&l->lock, NULL);
  int result = ukshm__listen_options(l, options, error);
  if (result == 0) result = ukshm__address_of(name, geteuid(), &l->address, error);
  if (result == 0) {
    l->socket = ukshm__socket();
    l->stop = eventfd(0, EFD_CLOEXEC);
    l->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    if (l->socket < 0 || l->stop < 0 || l->ready < 0) result = ukshm__fail_call(error, "socket");
  }
  if (result == 0) {
    setsockopt(l->socket, SOL_SOCKET, SO_PASSRIGHTS, &(int){0}, sizeof(int));
    result = ukshm__take_name(l, error);
  }
  if (result == 0) {
    errno = ukshm__thread(ukshm__listener_run, l, &l->thread);
    if (errno == 0) return l;
    ukshm__fail_call(error, "pthread_create");
  }
  ukshm__close_fd(&l->socket);
  ukshm__close_fd(&l->stop);
  ukshm__close_fd(&l->ready);
  ukshm__listener_unreference(l);
  return NULL;
}

ukshm_channel *ukshm_accept(ukshm_listener *l, int timeout_ms, ukshm_error *error) {
  int64_t deadline = ukshm__deadline(timeout_ms);
  eventfd_t count;
  while (eventfd_read(l->ready, &count) < 0) {
    if (errno != EINTR && !ukshm__ready(l->ready, POLLIN, deadline)) {
      ukshm__timeout(error);
      return NULL;
    }
  }
  pthread_mutex_lock(&l->lock);
  ukshm_channel *c = l->first_ready;
  l->first_ready = c->next_ready;
  if (l->first_ready == NULL) l->last_ready = &l->first_ready;
  pthread_mutex_unlock(&l->lock);
  return c;
}

int ukshm_listener_fd(const ukshm_listener *l) { return l->ready; }

void ukshm_listener_close(ukshm_listener *l) {
  if (l == NULL) return;
  eventfd_write(l->stop, 1);
  pthread_join(l->thread, NULL);
  struct stat status;
  const char *path = l->address.sun.sun_path;
  if (*path != 0 && lstat(path, &status) == 0 && status.st_ino == l->inode &&
      status.st_dev == l->device) {
    unlink(path);
  }
  ukshm__close_fd(&l->socket);
  ukshm__close_fd(&l->stop);
  ukshm__close_fd(&l->ready);
  while (l->first_ready != NULL) {
    ukshm_channel *c = l->first_ready;
    l->first_ready = c->next_ready;
    ukshm__channel_free(c);
  }
  ukshm__listener_unreference(l);
}

// ---- Connecting ---------------------------------------------------------------------------------

// From a meeting that went well to a channel.
static ukshm_channel *ukshm__channel_of(ukshm__meet *meet, const ukshm_connect_options *options) {
  ukshm_channel *c = ukshm__channel_new(&meet->peer, options->spin_us);
  if (c == NULL) return NULL;
  c->socket = meet->socket;
  c->own_fd = meet->fds[1];
  c->own_bytes = meet->own_bytes;
  c->peer_bytes = meet->peer_bytes;
  c->end.own = meet->own_base;
  c->end.peer = meet->peer_base;
  c->end.out = meet->ours;
  c->end.in = meet->theirs;
  meet->socket = meet->fds[1] = -1;
  meet->own_base = meet->peer_base = NULL;
  c->policy = meet->policy;
  c->peer_cannot_fence = (meet->welcome.flags & UKSHM__CANNOT_FENCE) != 0;
  memcpy(c->peer_token, meet->welcome.token, 8);
  c->address_length = meet->address.length;
  memcpy(c->address, &meet->address.sun, meet->address.length);
  memcpy(c->token, meet->hello + 32, 8);
  if (!ukshm__channel_start(c)) {
    ukshm__channel_free(c);
    return NULL;
  }
  if (options->forward_via != NULL) ukshm__register(options->forward_via, c);
  return c;
}

static uint32_t ukshm__wish(uint32_t asked) {
  return asked == 0 ? UKSHM__AS_YOU_LIKE : asked == UKSHM_NO_ARENA ? 0 : asked;
}

// Reaches the listener, whoever of the admitted owners has one, and fills in the HELLO.
static int ukshm__prepare_meet(ukshm__meet *meet, const char *name, const ukshm_connect_options *o,
                               ukshm_error *error) {
  int result = ukshm__policy_of(o->uids, o->uid_count, &meet->policy, error);
  if (result < 0) return result;
  ukshm__hello hello = {.send_ring = ukshm__wish(o->ring_bytes),
                        .send_arena = ukshm__wish(o->arena_bytes),
                        .receive_ring = ukshm__wish(o->receive_ring_bytes),
                        .receive_arena = ukshm__wish(o->receive_arena_bytes)};
  if (getrandom(hello.token, 8, 0) != 8) return ukshm__fail_call(error, "getrandom");
  if (o->forward_via != NULL) {
    hello.address_length = o->forward_via->address.length;
    memcpy(hello.address, &o->forward_via->address.sun, hello.address_length);
  }
  ukshm__encode_hello(&hello, meet->hello);
  meet->handshake_ms = o->handshake_ms <= 0 ? 5000 : (uint32_t)o->handshake_ms;
  int64_t deadline = ukshm__deadline(o->wait_ms);
  uint32_t users = meet->policy.count == 0 ? 1 : meet->policy.count;
  for (uint32_t i = 0;; i = (i + 1) % users) {
    // With several possible owners each has a name of its own: they are tried in turn.
    uint32_t uid = meet->policy.count == 0 ? geteuid() : meet->policy.uids[i];
    int wait_ms = users > 1 ? (i == users - 1 && o->wait_ms != 0 ? 20 : 0) : o->wait_ms;
    result = ukshm__address_of(name, uid, &meet->address, error);
    if (result < 0) return result;
    meet->socket = ukshm__reach(&meet->address, &meet->policy, wait_ms, (int)meet->handshake_ms,
                                &meet->peer, error);
    if (meet->socket != UKSHM_NO_LISTENER) return meet->socket < 0 ? meet->socket : 0;
    if (i == users - 1 && ukshm__now_ms() >= deadline) return UKSHM_NO_LISTENER;
  }
}

// The channel, or why there is none; the meeting is over for us in any case.
static ukshm_channel *ukshm__outcome(ukshm__meet *meet, const ukshm_connect_options *options,
                                     ukshm_error *error) {
  ukshm_channel *c = NULL;
  if (!ukshm__meet_is(meet, &meet->done)) {
    bool hangs = ukshm__meet_is(meet, &meet->checking);
    if (hangs) ukshm__fail(error, UKSHM_PEER_MISBEHAVED, "the descriptor that it passed hangs us");
    else ukshm__fail(error, UKSHM_TIMEOUT, "the listener did not answer in time");
  } else if (meet->result < 0) {
    if (error != NULL) *error = meet->error;
  } else if ((c = ukshm__channel_of(meet, options)) == NULL) {
    ukshm__fail(error, UKSHM_NO_MEMORY, "no memory for the channel");
  }
  ukshm__meet_abandon(meet);
  return c;
}

ukshm_channel *ukshm_connect(const char *name, const ukshm_connect_options *options,
                             ukshm_error *error) {
  ukshm_connect_options o = options == NULL ? (ukshm_connect_options){0} : *options;
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ukshm__meet *meet = event < 0 ? NULL : ukshm__meet_new(UKSHM__CHANNEL, event);
  ukshm_channel *c = NULL;
  if (meet == NULL) {
    ukshm__fail_call(error, "eventfd");
  } else if (ukshm__prepare_meet(meet, name, &o, error) < 0) {
    meet->socket = -1;
    ukshm__meet_free(meet);
  } else {
    // A little longer than the thread gives itself: it says more precisely what is missing.
    int64_t deadline = ukshm__now_ms() + meet->handshake_ms + 500;
    if (ukshm__meet_start(meet)) {
      ukshm__ready(event, POLLIN, deadline);
      c = ukshm__outcome(meet, &o, error);
    } else {
      ukshm__fail(error, UKSHM_LIMIT, "too many meetings hang: connect to those you trust");
    }
  }
  ukshm__close_fd(&event);
  return c;
}

static void ukshm__leave_group(ukshm_channel *c) {
  ukshm_channel *m = c->group;
  for (; m != c; m = m->group) {
    for (ukshm__export *export = m->exports; export != NULL; export = export->next) {
      if (export->source == &c->end) export->source = NULL;
    }
  }
  while (m->group != c) m = m->group;
  m->group = c->group;
  c->group = c;
  if (m != c) ukshm__turn(m, true);   // tells those to whom messages of this channel went
}

// Says that nothing more is published.
static void ukshm__begin_close(ukshm_channel *c) {
  c->end.inline_open = 0;
  ukshm__send_refusals(c);
  ukshm__publish(&c->end);
  c->closing = true;
  // RELEASE state: our last tail comes before it.
  ukshm__put(c->end.own, UKSHM__STATE, 1);
  ukshm__send_frame(c, (const uint8_t[]){UKSHM__F_RING}, 1);
}

// Whether the peer has read and released everything, as far as we know.
static bool ukshm__all_read(const ukshm_channel *c) {
  return c->end.head_seen == c->end.published && c->end.leases_out == 0;
}

int ukshm_close(ukshm_channel *c, int timeout_ms, ukshm_error *error) {
  if (c == NULL) return 0;
  ukshm__enter(c);
  ukshm__end *end = &c->end;
  ukshm__begin_close(c);
  int64_t deadline = 0;
  int result = 0;
  while (!ukshm__all_read(c) && !c->ended && !ukshm__peer_closing(c) && result == 0) {
    result = ukshm__wait(c, UKSHM_SPACE, timeout_ms, &deadline);
  }
  if (ukshm__all_read(c)) result = 0;
  else if (result < 0) ukshm__timeout(error);
  else if (c->ended != 0 && c->ended != UKSHM_PEER_CLOSED) result = ukshm__ended(c, error);
  ukshm__revoke_forwards(end);
  ukshm__leave_group(c);
  ukshm__channel_free(c);
  return result;
}

// ---- Sending and receiving ----------------------------------------------------------------------

// Whether anything can still be sent: the peer may have closed while it lives.
static int ukshm__check_open(const ukshm_channel *c, ukshm_error *error) {
  return c->ended || ukshm__peer_closing(c) ? ukshm__ended(c, error) : 0;
}

static uint32_t ukshm__message_max(const ukshm__end *end) {
  uint32_t most = ukshm__inline_max(&end->out);
  return end->out.arena > most ? end->out.arena : most;
}

static int ukshm__loan_open(ukshm_error *error) {
  return ukshm__fail(error, UKSHM_LOAN_OPEN, "a loan for a small message is open: send or "
                     "discard it first; small messages are sent in the order of their loans");
}

static int ukshm__bad_type(uint32_t type, ukshm_error *error) {
  return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the type is %u; expected 0 to 16383", type);
}

int ukshm_loan(ukshm_channel *c, size_t length, ukshm_open_loan *loan, int timeout_ms,
               ukshm_error *error) {
  ukshm__enter(c);
  ukshm__end *end = &c->end;
  uint32_t most = ukshm__message_max(end);
  int64_t deadline = 0;
  int result = 0;
  if (length > most) {
    result = ukshm__fail(error, UKSHM_MESSAGE_TOO_LONG, "%zu bytes; at most %u fit: let the "
                         "listener give a larger arena", length, most);
  } else if (end->inline_open != 0 && length <= ukshm__inline_max(&end->out)) {
    result = ukshm__loan_open(error);
  }
  while (result == 0) {
    if ((result = ukshm__check_open(c, error)) < 0) break;
    if (ukshm__lend(end, (uint32_t)length, loan) ||
        (ukshm__collect(end) == 0 && ukshm__lend(end, (uint32_t)length, loan))) {
      loan->channel = c;
      return 0;
    }
    if (ukshm__wait(c, UKSHM_SPACE, timeout_ms, &deadline) < 0) result = ukshm__timeout(error);
  }
  loan->channel = NULL;
  return result;
}

int ukshm_try_loan(ukshm_channel *c, size_t length, ukshm_open_loan *loan, ukshm_error *error) {
  return ukshm_loan(c, length, loan, 0, error);
}

// Sends a loan as a record of this kind.
static int ukshm__send_as(ukshm_open_loan *loan, uint32_t kind, bool publish, ukshm_error *error) {
  ukshm_channel *c = loan->channel;
  if (c == NULL) {
    return ukshm__fail(error, UKSHM_LOAN_USED, "this loan was sent or discarded before");
  }
  ukshm__end *end = &c->end;
  if (loan->type > UKSHM__TYPE_MAX) return ukshm__bad_type(loan->type, error);
  if (loan->length > loan->room) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the length is %zu; %u bytes were lent",
                       loan->length, loan->room);
  }
  if (loan->granules > 0 && end->inline_open != 0) return ukshm__loan_open(error);
  int result = ukshm__check_open(c, error);
  ukshm__end_loan(end, loan, result == 0, kind | loan->type, loan->id);
  loan->channel = NULL;
  if (result < 0) return result;
  c->stats.sent_messages++;
  c->stats.sent_bytes += loan->length;
  if (publish) ukshm_publish(c);
  return 0;
}

int ukshm_send_loan(ukshm_open_loan *loan, bool publish, ukshm_error *error) {
  return ukshm__send_as(loan, 0, publish, error);
}

void ukshm_discard(ukshm_open_loan *loan) {
  if (loan->channel != NULL) ukshm__end_loan(&loan->channel->end, loan, false, 0, 0);
  loan->channel = NULL;
}

static int ukshm__copy_in(ukshm_channel *c, const void *bytes, size_t length, uint32_t kind,
                          uint32_t type, uint32_t id, bool publish, int timeout_ms,
                          ukshm_error *error) {
  ukshm_open_loan loan;
  if (type > UKSHM__TYPE_MAX) return ukshm__bad_type(type, error);
  int result = ukshm_loan(c, length, &loan, timeout_ms, error);
  if (result < 0) return result;
  loan.type = type;
  loan.id = id;
  if (length > 0) memcpy(loan.bytes, bytes, length);
  result = ukshm__send_as(&loan, kind, publish, error);
  ukshm_discard(&loan);
  return result;
}

int ukshm_send(ukshm_channel *c, const void *bytes, size_t length, uint32_t type, uint32_t id,
               int timeout_ms, ukshm_error *error) {
  return ukshm__copy_in(c, bytes, length, 0, type, id, true, timeout_ms, error);
}

int ukshm_try_send(ukshm_channel *c, const void *bytes, size_t length, uint32_t type, uint32_t id,
                   bool publish, ukshm_error *error) {
  return ukshm__copy_in(c, bytes, length, 0, type, id, publish, 0, error);
}

void ukshm_publish(ukshm_channel *c) {
  ukshm__publish(&c->end);
  ukshm__ring(c);
}

// Lets a message wait, for its turn or for who asked for it. NULL: no memory; the channel ends.
static ukshm__aside *ukshm__keep(ukshm_channel *c, const ukshm_message *message) {
  bool in_ring = message->lease == UKSHM__INLINE;
  ukshm__aside *aside = malloc(sizeof *aside + (in_ring ? message->length : 0));
  if (aside == NULL) {
    ukshm__end_channel(c, UKSHM_NO_MEMORY);
    return NULL;
  }
  *aside = (ukshm__aside){.message = *message};
  aside->message.channel = c;
  if (!in_ring) return aside;
  memcpy(aside->bytes, message->bytes, message->length);
  ukshm__release_inline(&c->end, message->serial);
  aside->message.bytes = aside->bytes;
  aside->message.lease = UKSHM__COPIED;
  aside->message.copy = aside;
  c->aside_bytes += message->length;
  return aside;
}

static void ukshm__hand_out(ukshm_channel *c, ukshm__aside *aside, ukshm_message *message) {
  *message = aside->message;
  if (message->copy == NULL) {
    free(aside);
  } else {
    aside->next = c->copies;
    c->copies = aside;
  }
}

static void ukshm__free_copy(ukshm_channel *c, ukshm__aside *copy) {
  ukshm__aside **link = &c->copies;
  while (*link != copy) link = &(*link)->next;
  *link = copy->next;
  c->aside_bytes -= copy->message.length;
  free(copy);
}

// Whether the answer to `*id` came, or `any` message for the program: 1; 0: neither; -1: the peer
// lied; -2: no memory. Other answers are kept for those who wait for them; what was given up goes.
static int ukshm__take(ukshm_channel *c, ukshm_message *message, bool any, const uint32_t *id) {
  for (;;) {
    int result = c->ended == UKSHM_PEER_MISBEHAVED ? -1 : ukshm__next(&c->end, message);
    if (result == -1) ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
    if (result != 1) return result;
    message->channel = c;
    if (message->kind < UKSHM__REPLY) {
      if (any) return 1;
      ukshm__aside *aside = ukshm__keep(c, message);
      if (aside == NULL) return -2;
      *c->aside_last = aside;
      c->aside_last = &aside->next;
      if (c->aside_bytes < UKSHM__ASIDE_MAX) continue;
      return 0;
    }
    ukshm__slot *slot = ukshm__slot_of(&c->end, message->id);
    if (slot->state == UKSHM__GIVEN_UP) {
      ukshm__slot_give(&c->end, slot);
      ukshm_release(message);
    } else if (id != NULL && message->id == *id) {
      ukshm__slot_give(&c->end, slot);
      return 1;
    } else if ((slot->answer = ukshm__keep(c, message)) == NULL) {
      return -2;
    } else {
      slot->state = UKSHM__ANSWERED;
      c->end.unanswered--;
    }
  }
}

static void ukshm__count_received(ukshm_channel *c, const ukshm_message *message) {
  c->stats.received_messages++;
  c->stats.received_bytes += message->length;
  ukshm__ring(c);
}

int ukshm_receive(ukshm_channel *c, ukshm_message *message, int timeout_ms, ukshm_error *error) {
  ukshm__enter(c);
  int64_t deadline = 0;
  for (;;) {
    ukshm__aside *aside = c->aside;
    // Before looking at the tail: what the peer published last comes before its state.
    bool over = c->ended || ukshm__peer_closing(c);
    int result = 1;
    if (aside != NULL) {
      c->aside = aside->next;
      if (c->aside == NULL) c->aside_last = &c->aside;
      ukshm__hand_out(c, aside, message);
    } else {
      result = ukshm__take(c, message, true, NULL);
    }
    if (result == 1) {
      ukshm__count_received(c, message);
      return 0;
    }
    message->channel = NULL;
    if (result == -2) return ukshm__fail(error, UKSHM_NO_MEMORY, "no memory to hold more");
    if (over || result == -1) return ukshm__ended(c, error);
    if (ukshm__wait(c, UKSHM_MESSAGES, timeout_ms, &deadline) < 0) return ukshm__timeout(error);
  }
}

void ukshm_release(ukshm_message *message) {
  ukshm_channel *c = message->channel;
  if (c == NULL) return;
  if (message->request) {
    ukshm_refuse(message, "UkshmError", "ERR_UKSHM_NO_REPLY", "it was released unanswered");
    return;
  }
  message->channel = NULL;
  ukshm__region *region = message->region;
  if (message->lease == UKSHM__INLINE) {
    ukshm__release_inline(&c->end, message->serial);
  } else if (message->lease == UKSHM__COPIED) {
    ukshm__free_copy(c, message->copy);
  } else {
    if (region != NULL && --region->held == 0 && region->dropped) {
      ukshm__region_free(&c->end, region);
    }
    ukshm__give_back(&c->end, message->lease, message->generation);
  }
  // A peer that sleeps for space is not kept waiting.
  if ((ukshm__get(c->end.peer, UKSHM__ASLEEP_SPACE) & 1) != 0) ukshm__publish_head(&c->end);
  ukshm__enter(c);
  ukshm__ring(c);
}

// ---- Requests -----------------------------------------------------------------------------------

static int ukshm__too_many(ukshm_error *error) {
  return ukshm__fail(error, UKSHM_LIMIT, "65536 requests wait for their answers (or there is no "
                     "memory): await some before you ask more");
}

// A failure in place of a reply: "name\ncode\ntext", of a process that may have written anything.
static int ukshm__remote(ukshm_message *message, ukshm_error *error) {
  char bytes[UKSHM__FAILURE_BYTES + 1];
  size_t length = message->length < UKSHM__FAILURE_BYTES ? message->length : UKSHM__FAILURE_BYTES;
  memcpy(bytes, message->bytes, length);
  bytes[length] = 0;
  ukshm_release(message);
  char *text = bytes, *name = strsep(&text, "\n"), *code = strsep(&text, "\n");
  bool coded = code != NULL && *code != 0;
  return ukshm__fail(error, UKSHM_REMOTE, "%s%s%s%s: %s", name, coded ? " [" : "",
                     coded ? code : "", coded ? "]" : "", text == NULL ? "" : text);
}

int ukshm_ask(ukshm_channel *c, const void *bytes, size_t length, uint32_t type, uint32_t *id,
              int timeout_ms, ukshm_error *error) {
  if (!ukshm__slot_take(&c->end, id)) return ukshm__too_many(error);
  int result = ukshm__copy_in(c, bytes, length, UKSHM__REQUEST, type, *id, true, timeout_ms, error);
  if (result < 0) ukshm__slot_give(&c->end, ukshm__slot_of(&c->end, *id));
  return result;
}

int ukshm_ask_loan(ukshm_open_loan *loan, uint32_t *id, ukshm_error *error) {
  ukshm_channel *c = loan->channel;
  if (c == NULL) return ukshm__send_as(loan, UKSHM__REQUEST, true, error);
  if (!ukshm__slot_take(&c->end, id)) return ukshm__too_many(error);
  loan->id = *id;
  int result = ukshm__send_as(loan, UKSHM__REQUEST, true, error);
  if (result < 0) ukshm__slot_give(&c->end, ukshm__slot_of(&c->end, *id));
  return result;
}

int ukshm_await(ukshm_channel *c, uint32_t id, ukshm_message *reply, int timeout_ms,
                ukshm_error *error) {
  ukshm__enter(c);
  int64_t deadline = 0;
  reply->channel = NULL;
  for (;;) {
    ukshm__slot *slot = ukshm__slot_of(&c->end, id);
    if (slot == NULL || slot->state == UKSHM__GIVEN_UP) {
      return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "no request %u waits for an answer", id);
    }
    bool over = c->ended || ukshm__peer_closing(c);
    int result = 1;
    if (slot->state == UKSHM__ANSWERED) {
      ukshm__hand_out(c, slot->answer, reply);
      ukshm__slot_give(&c->end, slot);
    } else {
      if (c->aside_bytes >= UKSHM__ASIDE_MAX) {
        return ukshm__fail(error, UKSHM_LIMIT, "too many messages came before the answer: receive "
                           "and release them first");
      }
      result = ukshm__take(c, reply, false, &id);
    }
    if (result == 1) {
      ukshm__count_received(c, reply);
      return reply->kind == UKSHM__FAILURE ? ukshm__remote(reply, error) : 0;
    }
    reply->channel = NULL;
    if (result == -2) return ukshm__fail(error, UKSHM_NO_MEMORY, "no memory to hold more");
    if (result == -1 || (over && c->aside_bytes < UKSHM__ASIDE_MAX)) return ukshm__ended(c, error);
    if (ukshm__wait(c, UKSHM_MESSAGES, timeout_ms, &deadline) < 0) return ukshm__timeout(error);
  }
}

void ukshm_give_up(ukshm_channel *c, uint32_t id) {
  ukshm__slot *slot = ukshm__slot_of(&c->end, id);
  if (slot == NULL) return;
  if (slot->state == UKSHM__WAITING) {
    slot->state = UKSHM__GIVEN_UP;
  } else if (slot->state == UKSHM__ANSWERED) {
    ukshm_message reply;
    ukshm__hand_out(c, slot->answer, &reply);
    ukshm__slot_give(&c->end, slot);
    ukshm_release(&reply);
  }
}

int ukshm_request(ukshm_channel *c, const void *bytes, size_t length, uint32_t type,
                  ukshm_message *reply, int timeout_ms, ukshm_error *error) {
  uint32_t id = 0;
  reply->channel = NULL;
  int result = ukshm_ask(c, bytes, length, type, &id, timeout_ms, error);
  if (result < 0) return result;
  result = ukshm_await(c, id, reply, timeout_ms, error);
  if (result < 0) ukshm_give_up(c, id);
  return result;
}

static int ukshm__check_request(const ukshm_message *request, ukshm_error *error) {
  if (request->channel == NULL) {
    return ukshm__fail(error, UKSHM_MESSAGE_RELEASED, "the request was answered or released");
  }
  if (request->request) return 0;
  return ukshm__fail(error, UKSHM_NOT_A_REQUEST, "the message is no request: nobody waits for a "
                     "reply; use ukshm_send");
}

int ukshm_reply(ukshm_message *request, const void *bytes, size_t length, uint32_t type,
                int timeout_ms, ukshm_error *error) {
  int result = ukshm__check_request(request, error);
  if (result < 0) return result;
  result = ukshm__copy_in(request->channel, bytes, length, UKSHM__REPLY, type, request->id, true,
                          timeout_ms, error);
  if (result < 0) return result;
  request->request = false;
  ukshm_release(request);
  return 0;
}

int ukshm_reply_loan(ukshm_message *request, ukshm_open_loan *loan, ukshm_error *error) {
  int result = ukshm__check_request(request, error);
  if (result == 0 && loan->channel != NULL && loan->channel != request->channel) {
    result = ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the loan is another channel's");
  }
  if (result < 0) return result;
  loan->id = request->id;
  result = ukshm__send_as(loan, UKSHM__REPLY, true, error);
  if (result < 0) return result;
  request->request = false;
  ukshm_release(request);
  return 0;
}

void ukshm_refuse(ukshm_message *request, const char *name, const char *code, const char *text) {
  ukshm_channel *c = request->channel;
  if (c == NULL || !request->request) return;
  request->request = false;
  char bytes[UKSHM__FAILURE_BYTES + 1];
  int wanted = snprintf(bytes, sizeof bytes, "%s\n%s\n%s", name, code, text);
  uint32_t most = ukshm__inline_max(&c->end.out);
  uint32_t length = wanted < UKSHM__FAILURE_BYTES ? (uint32_t)wanted : UKSHM__FAILURE_BYTES;
  if (length > most) length = most;
  ukshm__refusal *refusal = malloc(sizeof *refusal + length);
  if (refusal != NULL) {
    *refusal = (ukshm__refusal){.id = request->id, .length = length};
    memcpy(refusal->bytes, bytes, length);
    ukshm__refusal **last = &c->refusals;
    while (*last != NULL) last = &(*last)->next;
    *last = refusal;
    ukshm__collect(&c->end);
    ukshm__send_refusals(c);
  }
  ukshm_release(request);
}

// ---- Forwarding, O → M → T; this is M -----------------------------------------------------------
//
// We ask T to map O's outbox (IMPORT) and wait until it has (IMPORTED). Then a message is handed on
// as a descriptor into it, under a lease of ours that remembers what we hold of O. T's release of
// that lease releases O's. When O's channel was closed here and all is back: DROP.

static int ukshm__join(ukshm_channel *a, ukshm_channel *b, ukshm_error *error) {
  int count = 0;
  ukshm_channel *m = a;
  do {
    if (m == b) return 0;
    count++;
    m = m->group;
  } while (m != a);
  for (m = b->group, count++; m != b; m = m->group) count++;
  if (count > UKSHM__GROUP) {
    return ukshm__fail(error, UKSHM_LIMIT, "more than 64 channels joined by forwarding");
  }
  ukshm_channel *next = a->group;
  a->group = b->group;
  b->group = next;
  return 0;
}

// The export of `from`'s memory to `to`; asks for it the first time.
static ukshm__export *ukshm__export_of(ukshm_channel *to, ukshm_channel *from) {
  ukshm__export *export = to->exports;
  while (export != NULL && export->source != &from->end) export = export->next;
  if (export != NULL) return export;
  export = calloc(1, sizeof *export);
  if (export == NULL) return NULL;
  *export = (ukshm__export){.next = to->exports, .source = &from->end,
                            .number = ++to->last_number};
  to->exports = export;
  uint8_t frame[UKSHM__FRAME_BYTES] = {UKSHM__F_IMPORT};
  ukshm__set32(frame + 1, export->number);
  memcpy(frame + 5, from->peer_token, 8);
  ukshm__set32(frame + 13, from->peer_uid);
  ukshm__set32(frame + 17, from->address_length);
  memcpy(frame + 21, from->address, from->address_length);
  ukshm__send_frame(to, frame, sizeof frame);
  return export;
}

static int ukshm__forward_chunk(ukshm_message *message, ukshm_channel *to, int timeout_ms,
                                ukshm_error *error) {
  ukshm_channel *from = message->channel;
  ukshm__end *end = &to->end;
  int64_t deadline = 0;
  int result = ukshm__join(from, to, error);
  while (result == 0) {
    if (end->inline_open != 0) return ukshm__loan_open(error);
    if ((result = ukshm__check_open(to, error)) < 0) break;
    ukshm__export *export = ukshm__export_of(to, from);
    if (export == NULL) return ukshm__fail(error, UKSHM_NO_MEMORY, "no memory");
    if (export->state == UKSHM__REFUSED) {
      ukshm__export_free(to, export);
      return ukshm__fail(error, UKSHM_CANNOT_FORWARD, "the next process may not map this "
                         "message's memory: let its sender admit it, or send a copy");
    }
    if (export->state == UKSHM__MAPPED && ukshm__collect(end) == 0 && ukshm__lease_free(end) &&
        ukshm__place(end, UKSHM__DESCRIPTOR, end->chunks_open * UKSHM__RESERVE) != NULL) {
      ukshm__lease lease = {.export = export, .source_lease = message->lease,
                            .source_generation = message->generation};
      export->lent++;
      end->forwards_out++;
      ukshm__commit_chunk(end, message->offset, (uint32_t)message->length, export->number,
                          message->type, message->id, lease);
      to->stats.sent_messages++;
      to->stats.sent_bytes += message->length;
      ukshm_publish(to);
      message->channel = NULL;
      return 0;
    }
    if (ukshm__wait(to, UKSHM_SPACE, timeout_ms, &deadline) < 0) return ukshm__timeout(error);
  }
  return result;
}

int ukshm_forward(ukshm_message *message, ukshm_channel *to, int timeout_ms, ukshm_error *error) {
  ukshm_channel *from = message->channel;
  if (from == NULL) {
    return ukshm__fail(error, UKSHM_MESSAGE_RELEASED, "the message was released or forwarded");
  }
  ukshm__enter(to);
  if (message->request) {
    return ukshm__fail(error, UKSHM_CANNOT_FORWARD, "the message is a request: its sender waits "
                       "for our reply; ask the next process, and reply with its answer");
  }
  if (message->lease >= UKSHM__INLINE) {
    int result = ukshm_send(to, message->bytes, message->length, message->type, message->id,
                            timeout_ms, error);
    if (result == 0) ukshm_release(message);
    return result;
  }
  if (message->region != NULL) {
    return ukshm__fail(error, UKSHM_CANNOT_FORWARD, "the message was forwarded to us: it can be "
                       "handed on once; send a copy");
  }
  if (from->address_length == 0) {
    return ukshm__fail(error, UKSHM_CANNOT_FORWARD, "the sender has no listener through which "
                       "others could map its memory: let it connect with forward_via, or send a "
                       "copy");
  }
  return ukshm__forward_chunk(message, to, timeout_ms, error);
}

// ---- Joining: what is said in JSON, as its first and its last word, by either side --------------
//
// What a peer wrote is copied first. A text ends with a 0, which is no part of any JSON.

enum { UKSHM__DATA = 0, UKSHM__JOIN = 1, UKSHM__LAST_WORD = 2, UKSHM__NOTE_BYTES = 4096 };

typedef struct ukshm__note {
  char text[UKSHM__NOTE_BYTES + 1];
} ukshm__note;

static const char *ukshm__blank(const char *at) { return at + strspn(at, " \t\n\r"); }

static const char *ukshm__digits(const char *at) { return at + strspn(at, "0123456789"); }

// The 4 hexadecimal digits behind \u; -1: they are none.
static int32_t ukshm__hex4(const char *at) {
  int32_t unit = 0;
  for (int i = 0; i < 4; i++) {
    const char *digits = "0123456789abcdef";
    const char *digit = at[i] == 0 ? NULL : strchr(digits, at[i] | (at[i] >= 'A' ? 32 : 0));
    if (digit == NULL) return -1;
    unit = unit * 16 + (int32_t)(digit - digits);
  }
  return unit;
}

static char *ukshm__utf8(char *out, uint32_t point) {
  int more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  // A 0 in two bytes, so that nothing ends there.
  if (point == 0) more = 1;
  static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
  *out++ = (char)(first[more] | (point >> (6 * more)));
  while (more-- > 0) *out++ = (char)(0x80 | ((point >> (6 * more)) & 0x3f));
  return out;
}

// Past a string; `out`, unless NULL, gets what it means, which is no longer. NULL: it is none.
static const char *ukshm__json_string(const char *at, char *out) {
  char nowhere[UKSHM__NOTE_BYTES + 1];
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (out == NULL) out = nowhere;
  if (*at++ != '"') return NULL;
  while (*at != '"') {
    char c = *at++;
    if ((unsigned char)c < 32) return NULL;
    if (c != '\\') {
      *out++ = c;
      continue;
    }
    const char *found = *at == 0 ? NULL : strchr(from, *at);
    if (found != NULL) {
      *out++ = to[found - from];
      at++;
      continue;
    }
    int32_t unit = *at == 'u' ? ukshm__hex4(at + 1) : -1;
    if (unit < 0) return NULL;
    at += 5;
    int32_t low = (unit & ~0x3ff) == 0xd800 && at[0] == '\\' && at[1] == 'u' ? ukshm__hex4(at + 2)
                                                                           : -1;
    bool pair = low >= 0 && (low & ~0x3ff) == 0xdc00;
    if (pair) at += 6;
    uint32_t point = pair ? 0x10000 + ((uint32_t)(unit & 0x3ff) << 10) + (uint32_t)(low & 0x3ff)
                          : (uint32_t)unit;
    out = ukshm__utf8(out, point);
  }
  *out = 0;
  return at + 1;
}

// Past a number, a literal or a string. NULL: it is none of these.
static const char *ukshm__json_scalar(const char *at) {
  static const char *const literals[] = {"true", "false", "null"};
  if (*at == '"') return ukshm__json_string(at, NULL);
  for (int i = 0; i < 3; i++) {
    size_t length = strlen(literals[i]);
    if (strncmp(at, literals[i], length) == 0) return at + length;
  }
  if (*at == '-') at++;
  const char *from = at;
  at = *at == '0' ? at + 1 : ukshm__digits(at);
  if (at == from) return NULL;
  if (*at == '.') {
    from = ++at;
    if ((at = ukshm__digits(at)) == from) return NULL;
  }
  if (*at != 'e' && *at != 'E') return at;
  at += at[1] == '+' || at[1] == '-' ? 2 : 1;
  from = at;
  return (at = ukshm__digits(at)) == from ? NULL : at;
}

// Past a member's name and colon. NULL: there is none.
static const char *ukshm__json_name(const char *at, char *name) {
  at = ukshm__json_string(at, name);
  if (at == NULL) return NULL;
  at = ukshm__blank(at);
  return *at == ':' ? ukshm__blank(at + 1) : NULL;
}

// Past one value. NULL: it is none. Without recursion: a peer chooses how deep it goes.
static const char *ukshm__json_value(const char *at) {
  char closing[UKSHM__NOTE_BYTES + 1];   // of what is open
  size_t depth = 0;
  for (;;) {
    if (*at == '{' || *at == '[') {
      bool object = *at == '{';
      closing[depth++] = object ? '}' : ']';
      at = ukshm__blank(at + 1);
      if (*at != closing[depth - 1]) {
        if (object && (at = ukshm__json_name(at, NULL)) == NULL) return NULL;
        continue;
      }
    } else if ((at = ukshm__json_scalar(at)) == NULL) {
      return NULL;
    }
    while (depth > 0 && *(at = ukshm__blank(at)) == closing[depth - 1]) {
      at++;
      depth--;
    }
    if (depth == 0) return at;
    if (*at != ',') return NULL;
    at = ukshm__blank(at + 1);
    if (closing[depth - 1] == '}' && (at = ukshm__json_name(at, NULL)) == NULL) return NULL;
  }
}

// Copies a message that must be a JSON object. False: it is none.
static bool ukshm__note_read(ukshm__note *note, const uint8_t *bytes, size_t length) {
  if (length > UKSHM__NOTE_BYTES) return false;
  memcpy(note->text, bytes, length);
  note->text[length] = 0;
  const char *at = ukshm__blank(note->text);
  if (*at != '{' || (at = ukshm__json_value(at)) == NULL) return false;
  return ukshm__blank(at) == note->text + length;
}

// The value of a member, of the last one of that name; NULL: there is none.
static const char *ukshm__note_find(const ukshm__note *note, const char *key) {
  char name[UKSHM__NOTE_BYTES + 1];
  const char *found = NULL, *at = ukshm__blank(ukshm__blank(note->text) + 1);
  while (*at != '}') {
    at = ukshm__json_name(at, name);
    if (strcmp(name, key) == 0) found = at;
    at = ukshm__blank(ukshm__json_value(at));
    if (*at == ',') at = ukshm__blank(at + 1);
  }
  return found;
}

// A member that must be a whole number from 0 to 2^32 - 1; -1: it is not. Not by strtod, which
// reads what the program's locale says.
static int64_t ukshm__note_number(const ukshm__note *note, const char *key) {
  const char *at = ukshm__note_find(note, key);
  if (at == NULL || (*at != '-' && (*at < '0' || *at > '9'))) return -1;
  bool negative = *at == '-';
  uint64_t value = 0;
  int64_t exponent = 0;
  bool behind = false;
  for (at += negative; *at == '.' || (*at >= '0' && *at <= '9'); at++) {
    if (*at == '.') {
      behind = true;
    } else if (value < UINT64_C(100000000000000000)) {
      value = value * 10 + (uint64_t)(*at - '0');
      exponent -= behind;
    } else {
      exponent += !behind;
    }
  }
  if (*at == 'e' || *at == 'E') {
    long long more = strtoll(at + 1, NULL, 10);
    exponent += more > 99999 ? 99999 : more < -99999 ? -99999 : more;
  }
  for (; exponent > 0 && value != 0; exponent--) {
    if (value > UINT32_MAX) return -1;
    value *= 10;
  }
  for (; exponent < 0 && value != 0; exponent++) {
    if (value % 10 != 0) return -1;
    value /= 10;
  }
  return value > UINT32_MAX || (negative && value != 0) ? -1 : (int64_t)value;
}

// A member that must be a string; false: it is not.
static bool ukshm__note_string(const ukshm__note *note, const char *key, char *out) {
  const char *at = ukshm__note_find(note, key);
  return at != NULL && ukshm__json_string(at, out) != NULL;
}

// Writes a string of JSON, behind what is there.
static void ukshm__note_put(char *text, size_t room, const char *string) {
  size_t at = strlen(text);
  for (; *string != 0 && at + 8 < room; string++) {
    unsigned char c = (unsigned char)*string;
    if (c >= 32 && c != '"' && c != '\\') text[at++] = (char)c;
    else at += (size_t)snprintf(text + at, room - at, "\\u%04x", c);
  }
  text[at] = 0;
}

// Why a last word says that nothing (more) comes: 0, regularly; a negative result; 1: for no reason
// that there is.
static int ukshm__note_end(const ukshm__note *note, const char *name, ukshm_error *error) {
  static const int ends[] = {UKSHM_CANNOT_FORWARD, UKSHM_INVALID_ARGUMENT, UKSHM_LIMIT,
                             UKSHM_MAY_NOT_BLOCK, UKSHM_NOT_OFFERED, UKSHM_NO_MEMORY, UKSHM_TIMEOUT,
                             UKSHM_TOO_SLOW};
  char code[UKSHM__NOTE_BYTES + 1], words[UKSHM__NOTE_BYTES + 1];
  if (ukshm__note_find(note, "code") == NULL) return 0;
  if (!ukshm__note_string(note, "code", code)) return 1;
  if (!ukshm__note_string(note, "message", words)) *words = 0;
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    if (strcmp(code, ukshm__code(ends[i])) != 0) continue;
    if (ends[i] == UKSHM_TOO_SLOW) {
      return ukshm__fail(error, ends[i], "this subscriber of '%s' was too slow, and its publisher "
                         "gave it up: release sooner, or take a greater depth or another 'slow'",
                         name);
    }
    return ukshm__fail(error, ends[i], "'%s': %s", name, words);
  }
  return 1;
}

// ---- Subscribing --------------------------------------------------------------------------------

struct ukshm_subscription {
  ukshm_channel *channel;
  char *name;
  uint32_t next, kept;     // the number that comes next, if nothing is lost
  uint64_t received, missed;
  ukshm_error end;         // result 0: the publisher has not said an error as its last word
};

static const char *const ukshm__policies[] = {"drop-oldest", "drop-newest", "block", "disconnect"};

// What the publisher answered: 0, and the subscription knows its numbers; 1: it lied, see `*lie`; or
// a negative result: why it does not admit us. `type`: of the message, with its kind.
static int ukshm__answer(ukshm_subscription *s, uint32_t type, const uint8_t *bytes, size_t length,
                         const char **lie, ukshm_error *error) {
  ukshm__note note;
  *lie = "its answer is of another type";
  if (type != UKSHM__JOIN && type != UKSHM__LAST_WORD) return 1;
  *lie = "its answer is no JSON object";
  if (!ukshm__note_read(&note, bytes, length)) return 1;
  if (type == UKSHM__LAST_WORD) {
    *lie = "it ends the topic for a reason that does not exist";
    int result = ukshm__note_end(&note, s->name, error);
    if (result != 0) return result;
    return ukshm__fail(error, UKSHM_PEER_CLOSED, "the topic '%s' is being closed", s->name);
  }
  int64_t sequence = ukshm__note_number(&note, "sequence");
  int64_t kept = ukshm__note_number(&note, "kept");
  *lie = "its answer holds no numbers";
  if (sequence < 0 || kept < 0) return 1;
  s->kept = (uint32_t)kept;
  s->next = (uint32_t)sequence - s->kept;
  return 0;
}

static void ukshm__count_missed(ukshm_subscription *s, uint32_t number, uint32_t *missed) {
  *missed = number - s->next;
  s->missed += *missed;
  s->next = number;
}

// The publisher's last word. False: it lied.
static bool ukshm__last_word(ukshm_subscription *s, uint32_t type, const uint8_t *bytes,
                             size_t length, const char **lie) {
  ukshm__note note;
  uint32_t missed;
  *lie = "a message of another type in a topic";
  if (type != UKSHM__LAST_WORD) return false;
  *lie = "its last word is no JSON object with a number";
  int64_t sequence;
  if (!ukshm__note_read(&note, bytes, length)) return false;
  if ((sequence = ukshm__note_number(&note, "sequence")) < 0) return false;
  *lie = "it ends the topic for a reason that does not exist";
  if (ukshm__note_end(&note, s->name, &s->end) == 1) return false;
  ukshm__count_missed(s, (uint32_t)sequence, &missed);
  return true;
}

// Ends a channel whose peer does not keep to its topic.
static int ukshm__misbehaves(ukshm_channel *c, const char *lie, ukshm_error *error) {
  ukshm__lie(&c->end, lie);
  ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
  return ukshm__ended(c, error);
}

void ukshm_unsubscribe(ukshm_subscription *s) {
  if (s == NULL) return;
  ukshm_close(s->channel, 0, NULL);
  free(s->name);
  free(s);
}

static int ukshm__join_topic(ukshm_subscription *s, const ukshm_subscribe_options *o,
                             ukshm_error *error) {
  char request[UKSHM__NOTE_BYTES];
  int answer_ms = o->answer_ms <= 0 ? 5000 : o->answer_ms;
  strcpy(request, "{\"topic\":\"");
  ukshm__note_put(request, sizeof request - 64, s->name);
  size_t length = strlen(request);
  snprintf(request + length, sizeof request - length, "\",\"slow\":\"%s\",\"depth\":%u}",
           ukshm__policies[o->slow], o->depth == 0 ? 256 : o->depth);
  int result = ukshm_send(s->channel, request, strlen(request), UKSHM__JOIN, 0, answer_ms, error);
  if (result < 0) return result;
  ukshm_message answer;
  result = ukshm_receive(s->channel, &answer, answer_ms, error);
  if (result == UKSHM_TIMEOUT) {
    return ukshm__fail(error, result, "the publisher of '%s' did not answer in %d ms", s->name,
                       answer_ms);
  }
  if (result < 0) return result;
  const char *lie;
  result = ukshm__answer(s, answer.kind | answer.type, answer.bytes, answer.length, &lie, error);
  answer.request = false;
  ukshm_release(&answer);
  return result == 1 ? ukshm__misbehaves(s->channel, lie, error) : result;
}

ukshm_subscription *ukshm_subscribe(const char *name, const ukshm_subscribe_options *options,
                                    ukshm_error *error) {
  ukshm_subscribe_options o = options == NULL ? (ukshm_subscribe_options){0} : *options;
  if (o.depth > UKSHM__SLOTS || o.slow < UKSHM_DROP_OLDEST || o.slow > UKSHM_DISCONNECT) {
    ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "depth is %u, slow is %d; expected 1 to 4096 (0: "
                "256), and one of UKSHM_DROP_OLDEST to UKSHM_DISCONNECT", o.depth, o.slow);
    return NULL;
  }
  // It says one thing: the least memory is enough.
  ukshm_connect_options connecting = {
      .ring_bytes = 4096, .arena_bytes = UKSHM_NO_ARENA, .receive_arena_bytes = UKSHM_NO_ARENA,
      .wait_ms = o.wait_ms, .uids = o.uids, .uid_count = o.uid_count, .handshake_ms = o.answer_ms,
      .spin_us = o.spin_us};
  ukshm_channel *channel = ukshm_connect(name, &connecting, error);
  if (channel == NULL) return NULL;
  ukshm_subscription *s = calloc(1, sizeof *s);
  if (s != NULL && (s->name = strdup(name)) != NULL) {
    s->channel = channel;
    if (ukshm__join_topic(s, &o, error) == 0) return s;
    ukshm_unsubscribe(s);
    return NULL;
  }
  free(s);
  ukshm_close(channel, 0, NULL);
  ukshm__fail(error, UKSHM_NO_MEMORY, "no memory for a subscription");
  return NULL;
}

int ukshm_topic_receive(ukshm_subscription *s, ukshm_message *message, uint32_t *missed,
                        int timeout_ms, ukshm_error *error) {
  uint32_t lost;
  for (;;) {
    message->channel = NULL;
    if (s->end.result != 0) {
      if (error != NULL) *error = s->end;
      return s->end.result;
    }
    int result = ukshm_receive(s->channel, message, timeout_ms, error);
    if (result < 0) return result;
    if (message->kind == 0 && message->type == UKSHM__DATA) {
      ukshm__count_missed(s, message->id, &lost);
      s->next++;
      s->received++;
      if (missed != NULL) *missed = lost;
      return 0;
    }
    const char *lie;
    bool good = ukshm__last_word(s, message->kind | message->type, message->bytes, message->length,
                                 &lie);
    message->request = false;
    ukshm_release(message);
    if (!good) return ukshm__misbehaves(s->channel, lie, error);
  }
}

void ukshm_subscription_numbers(const ukshm_subscription *s, ukshm_subscription_stats *stats) {
  *stats = (ukshm_subscription_stats){.received = s->received, .missed = s->missed, .kept = s->kept,
                                      .publisher_uid = s->channel->peer_uid,
                                      .publisher_pid = s->channel->peer_pid};
}

ukshm_channel *ukshm_subscription_channel(ukshm_subscription *s) { return s->channel; }

// ---- A topic's memory ---------------------------------------------------------------------------
//
// A plot: a memory that all subscribers map, laid out as an outbox whose rings stay unused. It is a
// channel without a peer as far as the listener is concerned, through which it is imported.
//
// A parcel: a published message. A small one has bytes of its own, a larger one a piece of a plot;
// it is written once, and freed with the last hold on it.

typedef struct ukshm__plot {
  struct ukshm__plot *next;
  ukshm_channel *base;
  uint32_t granules, parcels;   // parcels: that lie in it
} ukshm__plot;

typedef struct ukshm__parcel {
  ukshm__plot *plot;            // NULL: it is a small one
  struct ukshm__parcel *heap;   // where it lives longer than the call that publishes it
  uint8_t *bytes;
  uint32_t granule, granules, length, sequence, holds;
} ukshm__parcel;

// Parcels that wait for one subscriber, or are kept for those who come late; it gives up its old
// end.
typedef struct ukshm__queue {
  ukshm__parcel **parcels;
  uint32_t most, first, count;
  uint32_t granules;            // of those that lie in plots
} ukshm__queue;

static uint32_t ukshm__plot_free_granules(const ukshm__plot *plot) {
  return plot->granules - plot->base->end.granules_used;
}

static void ukshm__plot_free(ukshm__plot *plot) {
  if (plot == NULL) return;
  ukshm__channel_free(plot->base);
  free(plot);
}

// NULL: no memory.
static ukshm__plot *ukshm__plot_new(ukshm_listener *l, uint32_t arena) {
  ukshm__plot *plot = calloc(1, sizeof *plot);
  ukshm_channel *c = plot == NULL ? NULL : ukshm__channel_new(&(struct ucred){.pid = 0}, -1);
  if (c == NULL) {
    free(plot);
    return NULL;
  }
  ukshm__end *end = &c->end;
  plot->base = c;
  plot->granules = arena / UKSHM__GRANULE;
  ukshm__layout(&end->out, 4096, arena);
  end->extents = calloc(plot->granules / 2 + 2, sizeof *end->extents);
  c->own_bytes = end->out.total;
  if (end->extents != NULL && (c->own_fd = ukshm__make_outbox(&end->out)) >= 0) {
    end->extents[0] = (ukshm__extent){0, plot->granules};
    end->extent_count = 1;
    end->own = ukshm__map_own(c->own_fd, c->own_bytes);
  }
  if (end->own == NULL || getrandom(c->token, 8, 0) != 8) {
    ukshm__plot_free(plot);
    return NULL;
  }
  ukshm__register(l, c);
  return plot;
}

static uint32_t ukshm__parcel_offset(const ukshm__parcel *parcel) {
  return parcel->plot->base->end.out.arena_offset + parcel->granule * UKSHM__GRANULE;
}

// One of so many bytes in the plot, with one hold on it. NULL: no run of that length is free.
static ukshm__parcel *ukshm__parcel_new(ukshm__plot *plot, uint32_t length) {
  ukshm__parcel *parcel = calloc(1, sizeof *parcel);
  if (parcel == NULL) return NULL;
  *parcel = (ukshm__parcel){.plot = plot, .heap = parcel, .length = length, .holds = 1,
                            .granules = length / UKSHM__GRANULE + (length % UKSHM__GRANULE != 0)};
  if (!ukshm__arena_take(&plot->base->end, parcel->granules, &parcel->granule)) {
    free(parcel);
    return NULL;
  }
  plot->parcels++;
  parcel->bytes = plot->base->end.own + ukshm__parcel_offset(parcel);
  return parcel;
}

// The parcel with one hold more, where it lives on. NULL: no memory for a small one.
static ukshm__parcel *ukshm__parcel_hold(ukshm__parcel *parcel) {
  if (parcel->heap == NULL) {
    ukshm__parcel *heap = malloc(sizeof *heap + parcel->length);
    if (heap == NULL) return NULL;
    *heap = *parcel;
    heap->heap = heap;
    heap->holds = 0;
    heap->bytes = (uint8_t *)(heap + 1);
    if (parcel->length > 0) memcpy(heap->bytes, parcel->bytes, parcel->length);
    parcel->heap = heap;
  }
  parcel->heap->holds++;
  return parcel->heap;
}

static void ukshm__parcel_drop(ukshm__parcel *parcel) {
  if (--parcel->holds > 0) return;
  if (parcel->plot != NULL) {
    ukshm__arena_give(&parcel->plot->base->end, parcel->granule, parcel->granules);
    parcel->plot->parcels--;
  }
  free(parcel);
}

static bool ukshm__queue_start(ukshm__queue *queue, uint32_t most) {
  queue->most = most;
  queue->parcels = calloc(most + 1, sizeof *queue->parcels);
  return queue->parcels != NULL;
}

static ukshm__parcel *ukshm__queue_at(const ukshm__queue *queue, uint32_t index) {
  return queue->parcels[(queue->first + index) % (queue->most + 1)];
}

static void ukshm__queue_shift(ukshm__queue *queue) {
  ukshm__parcel *parcel = ukshm__queue_at(queue, 0);
  queue->first = (queue->first + 1) % (queue->most + 1);
  queue->count--;
  if (parcel->plot != NULL) queue->granules -= parcel->granules;
  ukshm__parcel_drop(parcel);
}

// Puts a parcel behind the others; returns how many were given up for it. `granules`: that all may
// take together; one parcel is always allowed.
static uint32_t ukshm__queue_push(ukshm__queue *queue, ukshm__parcel *parcel, uint32_t granules) {
  uint32_t dropped = 0;
  bool large = parcel->plot != NULL;
  parcel = ukshm__parcel_hold(parcel);
  if (parcel == NULL) return 1;
  queue->parcels[(queue->first + queue->count++) % (queue->most + 1)] = parcel;
  if (large) queue->granules += parcel->granules;
  while (queue->count > queue->most ||
         (large && queue->count > 1 && queue->granules > granules)) {
    ukshm__queue_shift(queue);
    dropped++;
  }
  return dropped;
}

// Moves what lies in `from` to `to`, as far as it fits there; the rest is given up.
static void ukshm__queue_move(ukshm__queue *queue, const ukshm__plot *from, ukshm__plot *to) {
  for (uint32_t left = queue->count; left > 0; left--) {
    ukshm__parcel *parcel = ukshm__parcel_hold(ukshm__queue_at(queue, 0));
    ukshm__queue_shift(queue);
    if (parcel->plot == from) {
      ukshm__parcel *moved = ukshm__parcel_new(to, parcel->length);
      if (moved != NULL) {
        moved->sequence = parcel->sequence;
        memcpy(moved->bytes, parcel->bytes, parcel->length);
        ukshm__queue_push(queue, moved, UINT32_MAX);
        ukshm__parcel_drop(moved);
      }
    } else {
      ukshm__queue_push(queue, parcel, UINT32_MAX);
    }
    ukshm__parcel_drop(parcel);
  }
}

static uint32_t ukshm__queue_clear(ukshm__queue *queue) {
  uint32_t count = queue->count;
  while (queue->count > 0) ukshm__queue_shift(queue);
  return count;
}

// ---- One subscriber, as its publisher sees it ---------------------------------------------------
//
// joining (its request is awaited) → entering (it maps the plot) → active → leaving (it was told
// the last word, and may still read) → gone; and from anywhere to gone. Prohibited: anything sent to
// one that is leaving.
//
// A small message is a record in the subscriber's ring, a larger one a descriptor that points into a
// plot. Either counts until it is released. `depth` bounds their number, and a share of what is free
// bounds the bytes: however many subscribers stop, each takes a part of what the ones before it have
// left.

enum { UKSHM__COPIED_MAX = 2048, UKSHM__LENT_MIN = 2, UKSHM__KEPT_ROOM = 192 };
enum { UKSHM__LINGER_MS = 1000, UKSHM__JOIN_MS = 5000, UKSHM__ENTER_MS = 200 };

typedef struct ukshm__outlet {
  struct ukshm__outlet *next;
  ukshm_channel *channel;
  enum { UKSHM__JOINING, UKSHM__ENTERING, UKSHM__ACTIVE, UKSHM__LEAVING, UKSHM__GONE } state;
  int64_t deadline;             // when it must have joined, or left
  int slow;
  uint32_t depth;
  uint64_t sent, dropped;
  uint32_t released, released_at_stall;   // counts what came back
  ukshm__queue queue;
  uint32_t *ends, ends_first, ends_count;   // where each small message ends that is not released
  bool ready;                   // there is news on its socket
} ukshm__outlet;

// It gives a large message back.
static void ukshm__parcel_back(ukshm__export *export, ukshm__parcel *parcel) {
  export->held -= parcel->granules;
  export->outlet->released++;
  ukshm__parcel_drop(parcel);
}

// The plot as the subscriber has it mapped, or is about to; NULL: neither.
static ukshm__export *ukshm__berth(const ukshm__outlet *o, const ukshm__plot *plot) {
  ukshm__export *export = o->channel->exports;
  while (export != NULL && export->plot != plot) export = export->next;
  return export;
}

// Has the subscriber map a plot. False: no memory.
static bool ukshm__enter_plot(ukshm__outlet *o, ukshm__plot *plot, const ukshm_listener *l) {
  ukshm_channel *c = o->channel;
  ukshm__export *export = calloc(1, sizeof *export);
  if (export == NULL) return false;
  *export = (ukshm__export){.next = c->exports, .plot = plot, .outlet = o,
                            .number = ++c->last_number};
  c->exports = export;
  uint8_t frame[UKSHM__FRAME_BYTES] = {UKSHM__F_IMPORT};
  ukshm__set32(frame + 1, export->number);
  memcpy(frame + 5, plot->base->token, 8);
  ukshm__set32(frame + 13, geteuid());
  ukshm__set32(frame + 17, l->address.length);
  memcpy(frame + 21, &l->address.sun, l->address.length);
  ukshm__send_frame(c, frame, sizeof frame);
  return true;
}

// Nothing of a plot is sent any more: the subscriber is told when all of it is back.
static void ukshm__forget_plot(ukshm__outlet *o, const ukshm__plot *plot) {
  ukshm__export *export = ukshm__berth(o, plot);
  if (export == NULL) return;
  export->plot = NULL;
  ukshm__drop_exports(o->channel);
}

static bool ukshm__outlet_over(const ukshm__outlet *o) {
  return o->channel->ended || ukshm__peer_closing(o->channel);
}

// Reads what came back; whether anything did.
static bool ukshm__refresh(ukshm__outlet *o) {
  ukshm_channel *c = o->channel;
  uint32_t before = o->released;
  if (!c->ended && ukshm__collect(&c->end) < 0) ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
  while (o->ends_count > 0 && (int32_t)(o->ends[o->ends_first] - c->end.head_seen) <= 0) {
    o->ends_first = (o->ends_first + 1) % o->depth;
    o->ends_count--;
    o->released++;
  }
  return o->released != before;
}

static bool ukshm__may_take(const ukshm__outlet *o, const ukshm__parcel *parcel) {
  const ukshm__end *end = &o->channel->end;
  if (end->leases_out + o->ends_count >= o->depth) return false;
  uint32_t room = ukshm__ring_free(end);
  if (room < UKSHM__KEPT_ROOM) return false;
  room -= UKSHM__KEPT_ROOM;
  // A record that does not fit before the ring's end takes up to its own length of padding.
  if (parcel->plot == NULL) return room >= 2 * (parcel->length + UKSHM__HEADER);
  const ukshm__export *export = ukshm__berth(o, parcel->plot);
  if (room < UKSHM__RESERVE || export == NULL || export->state != UKSHM__MAPPED) return false;
  uint64_t held = (uint64_t)export->held + parcel->granules;
  return end->leases_out < UKSHM__LENT_MIN ||
         held * 4 <= ukshm__plot_free_granules(parcel->plot);
}

static bool ukshm__finds_room(ukshm__outlet *o, const ukshm__parcel *parcel) {
  return ukshm__may_take(o, parcel) || (ukshm__refresh(o) && ukshm__may_take(o, parcel));
}

// Sends a parcel; true also where there is nobody any more. False: no room.
static bool ukshm__hand_over(ukshm__outlet *o, ukshm__parcel *parcel) {
  ukshm_channel *c = o->channel;
  ukshm__end *end = &c->end;
  if (ukshm__outlet_over(o)) return true;
  if (!ukshm__finds_room(o, parcel)) return ukshm__outlet_over(o);
  if (parcel->plot == NULL) {
    ukshm_open_loan loan;
    if (!ukshm__lend(end, parcel->length, &loan)) return false;
    if (parcel->length > 0) memcpy(loan.bytes, parcel->bytes, parcel->length);
    ukshm__end_loan(end, &loan, true, UKSHM__DATA, parcel->sequence);
    o->ends[(o->ends_first + o->ends_count++) % o->depth] = end->tail;
  } else {
    if (ukshm__place(end, UKSHM__DESCRIPTOR, 0) == NULL) return false;
    ukshm__export *export = ukshm__berth(o, parcel->plot);
    ukshm__lease lease = {.export = export, .parcel = ukshm__parcel_hold(parcel)};
    export->lent++;
    export->held += parcel->granules;
    end->forwards_out++;
    ukshm__commit_chunk(end, ukshm__parcel_offset(parcel), parcel->length, export->number,
                        UKSHM__DATA, parcel->sequence, lease);
  }
  o->sent++;
  c->stats.sent_messages++;
  c->stats.sent_bytes += parcel->length;
  ukshm_publish(c);
  return true;
}

// Sends what waits, in order, as far as there is room; whether nothing waits any more.
static bool ukshm__flush_queue(ukshm__outlet *o) {
  while (o->queue.count > 0) {
    if (!ukshm__hand_over(o, ukshm__queue_at(&o->queue, 0))) return false;
    ukshm__queue_shift(&o->queue);
  }
  return true;
}

static bool ukshm__offer(ukshm__outlet *o, ukshm__parcel *parcel) {
  return ukshm__flush_queue(o) && ukshm__hand_over(o, parcel);
}

// There is no room for a parcel: it waits, or pushes another one out.
static void ukshm__late(ukshm__outlet *o, ukshm__parcel *parcel) {
  uint32_t most = parcel->plot == NULL ? 0 : ukshm__plot_free_granules(parcel->plot) / 4;
  o->dropped += ukshm__queue_push(&o->queue, parcel, most);
}

// Says why there is no more: JSON. It may still read and release what it was sent.
static void ukshm__outlet_leave(ukshm__outlet *o, const char *note, int64_t deadline) {
  o->state = UKSHM__LEAVING;
  o->deadline = deadline;
  o->dropped += ukshm__queue_clear(&o->queue);
  ukshm_try_send(o->channel, note, strlen(note), UKSHM__LAST_WORD, 0, true, NULL);
  ukshm__begin_close(o->channel);
}

// It is gone, or given up: what it was lent is back.
static void ukshm__outlet_free(ukshm__outlet *o) {
  ukshm_channel *c = o->channel;
  if (!c->ended && !c->closing) ukshm__begin_close(c);
  ukshm__revoke_forwards(&c->end);
  ukshm__queue_clear(&o->queue);
  ukshm__channel_free(c);
  free(o->queue.parcels);
  free(o->ends);
  free(o);
}

// ---- Publishing ---------------------------------------------------------------------------------
//
// All of a topic is used under its lock; nothing waits for a subscriber while it has it. Whoever
// waits for space is woken by the topic's thread.
//
// The memory: usable → stalled (no room) → usable (room came back); stalled → renewing (no room for
// patience_ms) → usable, in a fresh plot. A parcel's memory is never used again while a living
// subscriber may look at it: those that hold everything up are disconnected, and what they look at
// stays as it is, in a plot that from then on is theirs alone. Prohibited: a second renewal while one
// is under way.

struct ukshm_topic {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  pthread_t thread;
  int wake;                      // an eventfd: the thread shall look again
  char *name;
  ukshm_topic_options options;
  ukshm_listener *listener;      // the thread closes it
  uint32_t sequence, copied_max, message_max, waiting;
  ukshm__outlet *outlets;
  ukshm__queue kept;
  ukshm__plot *plot, *retired;
  uint32_t stalled;              // the length that did not fit; 0: everything did
  int64_t deadline;              // when patience, or a renewal, is over
  bool renewing, closed, over;
};

static void ukshm__poke(const ukshm_topic *t) { eventfd_write(t->wake, 1); }

static void ukshm__disconnect(ukshm_topic *t, ukshm__outlet *o) {
  char note[96];
  if (o->state != UKSHM__ACTIVE) return;
  snprintf(note, sizeof note, "{\"code\":\"ERR_UKSHM_TOO_SLOW\",\"sequence\":%u}", t->sequence);
  ukshm__outlet_leave(o, note, UKSHM__NEVER);
  ukshm__poke(t);
}

// Reads what all have released; whether anything was.
static bool ukshm__collect_all(ukshm_topic *t) {
  bool any = false;
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (ukshm__refresh(o)) any = true;
  }
  return any;
}

static void ukshm__usable(ukshm_topic *t) {
  t->stalled = 0;
  t->deadline = UKSHM__NEVER;
}

// Memory for a message; NULL while there is no room.
static ukshm__parcel *ukshm__topic_parcel(ukshm_topic *t, uint32_t length) {
  if (t->renewing) return NULL;
  ukshm__parcel *parcel = ukshm__parcel_new(t->plot, length);
  if (parcel == NULL && ukshm__collect_all(t)) parcel = ukshm__parcel_new(t->plot, length);
  if (parcel != NULL) {
    if (t->stalled > 0) ukshm__usable(t);
    return parcel;
  }
  bool before = t->stalled > 0;
  if (length > t->stalled) t->stalled = length;
  if (before) return NULL;
  // From now on it counts who releases something.
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) o->released_at_stall = o->released;
  t->deadline = ukshm__deadline(t->options.patience_ms);
  ukshm__poke(t);
  return NULL;
}

static uint32_t ukshm__held(const ukshm__outlet *o, const ukshm__plot *plot) {
  const ukshm__export *export = ukshm__berth(o, plot);
  return export == NULL ? 0 : export->held;
}

static bool ukshm__holds_old(const ukshm_topic *t, const ukshm__outlet *o) {
  for (const ukshm__plot *plot = t->retired; plot != NULL; plot = plot->next) {
    if (ukshm__held(o, plot) > 0) return true;
  }
  return false;
}

// Whom to disconnect when nothing fits: who released nothing; else who holds old memory, too; else
// who holds most. False: nobody holds anything.
static bool ukshm__expel(ukshm_topic *t) {
  ukshm__outlet *most = NULL;
  bool any = false;
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    uint32_t held = ukshm__held(o, t->plot);
    if (held > 0 && (most == NULL || held > ukshm__held(most, t->plot))) most = o;
  }
  if (most == NULL) return false;
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    bool idle = ukshm__held(o, t->plot) > 0 && o->released == o->released_at_stall;
    if (!idle && !ukshm__holds_old(t, o)) continue;
    any = true;
    ukshm__disconnect(t, o);
    o->state = UKSHM__GONE;
  }
  if (!any) {
    ukshm__disconnect(t, most);
    most->state = UKSHM__GONE;
  }
  return true;
}

// Goes on in a fresh plot. False: it need not, or cannot.
static bool ukshm__renew(ukshm_topic *t) {
  ukshm__plot *fresh = ukshm__plot_new(t->listener, t->options.arena_bytes);
  if (fresh == NULL) return false;
  // The program's own loans may be all that is in the way: then it is they that are waited for.
  if (!ukshm__expel(t)) {
    ukshm__plot_free(fresh);
    return false;
  }
  ukshm__plot *old = t->plot;
  t->plot = fresh;
  old->next = t->retired;
  t->retired = old;
  if (t->options.keep > 0) ukshm__queue_move(&t->kept, old, fresh);
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (o->state == UKSHM__ACTIVE) ukshm__enter_plot(o, fresh, t->listener);
  }
  t->renewing = true;
  t->deadline = ukshm__deadline(UKSHM__ENTER_MS);
  return true;
}

// Plots of which nothing is held any more go.
static void ukshm__retire(ukshm_topic *t) {
  for (ukshm__plot **link = &t->retired, *plot; (plot = *link) != NULL;) {
    if (plot->parcels > 0) {
      link = &plot->next;
      continue;
    }
    *link = plot->next;
    for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) ukshm__forget_plot(o, plot);
    ukshm__plot_free(plot);
  }
}

// What the thread does for the memory.
static void ukshm__attend_memory(ukshm_topic *t) {
  ukshm__retire(t);
  bool due = ukshm__now_ms() >= t->deadline;
  if (t->renewing) {
    bool all = true;
    for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
      const ukshm__export *export = ukshm__berth(o, t->plot);
      if (o->state == UKSHM__ACTIVE && (export == NULL || export->state == UKSHM__ASKED)) {
        all = false;
      }
    }
    if (!all && !due) return;
    t->renewing = false;
  } else if (due) {
    ukshm__collect_all(t);
    ukshm__parcel *parcel = ukshm__parcel_new(t->plot, t->stalled);
    if (parcel == NULL && t->listener != NULL && ukshm__renew(t)) return;
    if (parcel != NULL) ukshm__parcel_drop(parcel);
  } else {
    return;
  }
  ukshm__usable(t);
  pthread_cond_broadcast(&t->changed);
}

// What a connector asks of the topic: 0, and the outlet knows its wishes; 1: it broke the protocol;
// or a negative result: what it is told instead.
static int ukshm__wishes(const ukshm_topic *t, ukshm__outlet *o, uint32_t type,
                         const uint8_t *bytes, size_t length, ukshm_error *error) {
  ukshm__note note;
  char text[UKSHM__NOTE_BYTES + 1];
  if (type != UKSHM__JOIN || !ukshm__note_read(&note, bytes, length)) return 1;
  // Where folders are mounted elsewhere, the last part of a path is the same.
  bool named = ukshm__note_string(&note, "topic", text);
  const char *asked = strrchr(text, '/'), *ours = strrchr(t->name, '/');
  if (!named || strcmp(asked == NULL ? text : asked + 1, ours == NULL ? t->name : ours + 1) != 0) {
    return ukshm__fail(error, UKSHM_NOT_OFFERED, "no such topic here; this is '%s': subscribe to "
                       "it by that name", t->name);
  }
  o->slow = UKSHM_DROP_OLDEST;
  if (ukshm__note_find(&note, "slow") != NULL) {
    o->slow = -1;
    for (int i = 0; i < 4 && ukshm__note_string(&note, "slow", text); i++) {
      if (strcmp(text, ukshm__policies[i]) == 0) o->slow = i;
    }
  }
  int64_t depth = ukshm__note_find(&note, "depth") == NULL ? 256
                                                           : ukshm__note_number(&note, "depth");
  if (o->slow < 0 || depth < 1 || depth > UKSHM__SLOTS) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "expected one of four policies as 'slow', "
                       "and 1 to 4096 as 'depth'");
  }
  o->depth = (uint32_t)depth;
  if (o->slow != UKSHM_BLOCK || t->options.may_block) return 0;
  return ukshm__fail(error, UKSHM_MAY_NOT_BLOCK, "a subscriber with slow 'block' could stop this "
                     "topic for all: its publisher must allow that, or choose another 'slow'");
}

static void ukshm__refuse_subscriber(ukshm__outlet *o, const ukshm_error *error) {
  char note[480];
  snprintf(note, sizeof note, "{\"code\":\"%s\",\"message\":\"", error->code);
  ukshm__note_put(note, sizeof note - 4, error->message);
  strcat(note, "\"}");
  ukshm__outlet_leave(o, note, ukshm__deadline(UKSHM__LINGER_MS));
}

// Joining: its request.
static void ukshm__hear_request(ukshm_topic *t, ukshm__outlet *o) {
  ukshm_message request;
  ukshm_error error;
  int result = ukshm_receive(o->channel, &request, 0, &error);
  if (result == UKSHM_TIMEOUT && ukshm__now_ms() < o->deadline) return;
  o->state = UKSHM__GONE;
  if (result < 0) return;
  result = ukshm__wishes(t, o, request.kind | request.type, request.bytes, request.length, &error);
  request.request = false;
  ukshm_release(&request);
  if (result == 1) ukshm__misbehaves(o->channel, "its request is none", NULL);
  else if (result < 0) ukshm__refuse_subscriber(o, &error);
  if (result != 0 || !ukshm__queue_start(&o->queue, o->depth)) return;
  o->ends = calloc(o->depth, sizeof *o->ends);
  o->deadline = ukshm__deadline(UKSHM__JOIN_MS);
  if (o->ends != NULL && ukshm__enter_plot(o, t->plot, t->listener)) o->state = UKSHM__ENTERING;
}

// It has mapped the plot: what is published next is the first that it is sent, behind what is kept.
static void ukshm__activate(ukshm_topic *t, ukshm__outlet *o) {
  char note[64];
  uint32_t kept = t->kept.count < o->depth ? t->kept.count : o->depth;
  snprintf(note, sizeof note, "{\"sequence\":%u,\"kept\":%u}", t->sequence, kept);
  o->state = UKSHM__ACTIVE;
  ukshm_try_send(o->channel, note, strlen(note), UKSHM__JOIN, 0, true, NULL);
  for (uint32_t i = t->kept.count - kept; i < t->kept.count; i++) {
    ukshm__parcel *parcel = ukshm__queue_at(&t->kept, i);
    if (!ukshm__offer(o, parcel)) ukshm__late(o, parcel);
  }
}

// Entering: waits until it has mapped the plot that is in use then.
static void ukshm__lodge(ukshm_topic *t, ukshm__outlet *o) {
  ukshm_error error;
  ukshm__export *export = ukshm__berth(o, t->plot);
  if (export == NULL) {
    // The one that it was to map is in use no more.
    for (const ukshm__plot *plot = t->retired; plot != NULL; plot = plot->next) {
      ukshm__forget_plot(o, plot);
    }
    if (!ukshm__enter_plot(o, t->plot, t->listener)) o->state = UKSHM__GONE;
  } else if (export->state == UKSHM__MAPPED) {
    ukshm__activate(t, o);
  } else if (export->state == UKSHM__REFUSED) {
    ukshm__fail(&error, UKSHM_CANNOT_FORWARD, "the memory was not mapped");
    ukshm__refuse_subscriber(o, &error);
  } else if (ukshm__now_ms() >= o->deadline) {
    ukshm__fail(&error, UKSHM_TIMEOUT, "the memory was not mapped in 5 s");
    ukshm__refuse_subscriber(o, &error);
  }
}

// Goes on with one subscriber.
static void ukshm__attend_outlet(ukshm_topic *t, ukshm__outlet *o) {
  if (o->ready || o->state != UKSHM__ACTIVE) ukshm__turn(o->channel, true);
  o->ready = false;
  bool joins = o->state == UKSHM__JOINING || o->state == UKSHM__ENTERING;
  if ((t->closed && joins) || ukshm__outlet_over(o)) o->state = UKSHM__GONE;
  ukshm__refresh(o);
  if (o->state == UKSHM__JOINING) {
    ukshm__hear_request(t, o);
  } else if (o->state == UKSHM__ENTERING) {
    ukshm__lodge(t, o);
  } else if (o->state == UKSHM__ACTIVE) {
    const ukshm__export *export = ukshm__berth(o, t->plot);
    bool flushed = ukshm__flush_queue(o);
    if (export != NULL && export->state == UKSHM__REFUSED) {
      ukshm__disconnect(t, o);   // it did not map the fresh plot
    } else if (flushed && t->closed) {
      char note[64];
      snprintf(note, sizeof note, "{\"sequence\":%u}", t->sequence);
      ukshm__outlet_leave(o, note, UKSHM__NEVER);
    }
  }
  if (o->state == UKSHM__LEAVING && (ukshm__all_read(o->channel) || ukshm__outlet_over(o) ||
                                     ukshm__now_ms() >= o->deadline)) {
    o->state = UKSHM__GONE;
  }
}

static void ukshm__admit_subscribers(ukshm_topic *t) {
  ukshm_channel *c;
  while ((c = ukshm_accept(t->listener, 0, NULL)) != NULL) {
    ukshm__outlet *o = calloc(1, sizeof *o);
    if (o == NULL) {
      ukshm_close(c, 0, NULL);
      continue;
    }
    *o = (ukshm__outlet){.next = t->outlets, .channel = c, .depth = 1,
                         .deadline = ukshm__deadline(UKSHM__JOIN_MS)};
    t->outlets = o;
  }
}

// What the thread does whenever there are news. Returns when it must look again.
static int64_t ukshm__topic_round(ukshm_topic *t) {
  bool changed = t->listener != NULL && t->closed;
  if (changed) {
    ukshm_listener_close(t->listener);
    t->listener = NULL;
  }
  if (t->listener != NULL) ukshm__admit_subscribers(t);
  int64_t first = UKSHM__NEVER;
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    uint32_t before = o->released;
    ukshm__attend_outlet(t, o);
    if (o->released != before) changed = true;
  }
  ukshm__attend_memory(t);
  for (ukshm__outlet **link = &t->outlets, *o; (o = *link) != NULL;) {
    if (o->state == UKSHM__GONE) {
      *link = o->next;
      ukshm__outlet_free(o);
      changed = true;
      continue;
    }
    if (o->state != UKSHM__ACTIVE && o->deadline < first) first = o->deadline;
    link = &o->next;
  }
  if (changed) ukshm__retire(t);
  if (changed) pthread_cond_broadcast(&t->changed);
  return t->deadline < first ? t->deadline : first;
}

// Announces to those who can change what is waited for that we sleep. False: there is news.
static bool ukshm__topic_asleep(const ukshm_topic *t) {
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    ukshm_channel *c = o->channel;
    bool joins = o->state == UKSHM__JOINING;
    bool wanted = t->waiting > 0 || t->stalled > 0 || o->queue.count > 0 || t->retired != NULL;
    if (o->state == UKSHM__ACTIVE && !wanted) continue;
    if (joins) ukshm__announce(c, &c->asleep_records, UKSHM__ASLEEP_RECORDS, true);
    else ukshm__announce(c, &c->asleep_space, UKSHM__ASLEEP_SPACE, true);
    if (ukshm__news(c, joins ? UKSHM_MESSAGES : UKSHM_SPACE)) return false;
  }
  return true;
}

static void *ukshm__topic_run(void *argument) {
  ukshm_topic *t = argument;
  struct pollfd *fds = NULL;
  size_t room = 0;
  pthread_mutex_lock(&t->lock);
  while (!t->over) {
    int64_t first = ukshm__topic_round(t);
    size_t count = 2;
    for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) count++;
    if (count > room) {
      struct pollfd *more = realloc(fds, (count + 16) * sizeof *fds);
      if (more != NULL) {
        fds = more;
        room = count + 16;
      } else {
        count = room;
      }
    }
    if (count >= 2) {
      fds[0] = (struct pollfd){.fd = t->wake, .events = POLLIN};
      fds[1] = (struct pollfd){.fd = t->listener == NULL ? -1 : ukshm_listener_fd(t->listener),
                               .events = POLLIN};
    }
    size_t at = 2;
    for (ukshm__outlet *o = t->outlets; o != NULL && at < count; o = o->next) {
      fds[at++] = (struct pollfd){.fd = o->channel->poll_fd, .events = POLLIN};
    }
    bool asleep = ukshm__topic_asleep(t);
    ukshm__outlet *newest = t->outlets;
    pthread_mutex_unlock(&t->lock);
    poll(fds, count, asleep ? ukshm__left_ms(first) : 0);
    pthread_mutex_lock(&t->lock);
    eventfd_t rings;
    if (count >= 2 && fds[0].revents != 0) eventfd_read(t->wake, &rings);
    // Only this thread adds and removes some: they are the same.
    at = 2;
    for (ukshm__outlet *o = newest; o != NULL; o = o->next) {
      ukshm__awake(o->channel);
      o->ready = at >= count || fds[at].revents != 0;
      at++;
    }
  }
  pthread_mutex_unlock(&t->lock);
  free(fds);
  return NULL;
}

static void ukshm__topic_free(ukshm_topic *t) {
  ukshm_listener_close(t->listener);
  for (ukshm__outlet *o = t->outlets, *next; o != NULL; o = next) {
    next = o->next;
    ukshm__outlet_free(o);
  }
  ukshm__queue_clear(&t->kept);
  free(t->kept.parcels);
  ukshm__plot_free(t->plot);
  for (ukshm__plot *plot = t->retired, *next; plot != NULL; plot = next) {
    next = plot->next;
    ukshm__plot_free(plot);
  }
  ukshm__close_fd(&t->wake);
  pthread_cond_destroy(&t->changed);
  pthread_mutex_destroy(&t->lock);
  free(t->name);
  free(t);
}

static int ukshm__topic_start(ukshm_topic *t, const char *name, ukshm_error *error) {
  ukshm_topic_options *o = &t->options;
  if (o->arena_bytes == 0) o->arena_bytes = 16 << 20;
  if (o->ring_bytes == 0) o->ring_bytes = 256 << 10;
  if (o->subscribers_max == 0) o->subscribers_max = 1024;
  if (o->patience_ms <= 0) o->patience_ms = 200;
  ukshm__sizes sizes;
  if (!ukshm__layout(&sizes, o->ring_bytes, o->arena_bytes) || o->keep > UKSHM__SLOTS) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "ring_bytes is %u, arena_bytes %u, keep %u; "
                       "expected a power of two from 4096, a multiple of 65536, up to 4096",
                       o->ring_bytes, o->arena_bytes, o->keep);
  }
  ukshm__layout(&sizes, o->ring_bytes, 0);
  uint32_t eighth = o->ring_bytes / 8, quarter = o->arena_bytes / 4;
  t->sequence = o->first_sequence;
  t->copied_max = eighth < UKSHM__COPIED_MAX ? eighth : UKSHM__COPIED_MAX;
  t->message_max = quarter > t->copied_max ? quarter : t->copied_max;
  ukshm_listen_options listening = {
      .ring_bytes = o->ring_bytes, .arena_bytes = UKSHM_NO_ARENA, .arena_bytes_max = UKSHM_NO_ARENA,
      .channels_max = o->subscribers_max, .uids = o->uids, .uid_count = o->uid_count,
      .user_bytes_max = 2 * (uint64_t)o->subscribers_max * sizes.total};
  t->listener = ukshm_listen(name, &listening, error);
  if (t->listener == NULL) return -1;
  t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  t->plot = ukshm__plot_new(t->listener, o->arena_bytes);
  t->name = strdup(name);
  if (t->wake < 0 || t->plot == NULL || t->name == NULL ||
      !ukshm__queue_start(&t->kept, o->keep)) {
    return ukshm__fail(error, UKSHM_NO_MEMORY, "no memory, or no descriptors, for a topic");
  }
  errno = ukshm__thread(ukshm__topic_run, t, &t->thread);
  return errno == 0 ? 0 : ukshm__fail_call(error, "pthread_create");
}

ukshm_topic *ukshm_topic_open(const char *name, const ukshm_topic_options *options,
                              ukshm_error *error) {
  ukshm_topic *t = calloc(1, sizeof *t);
  if (t == NULL) {
    ukshm__fail(error, UKSHM_NO_MEMORY, "no memory for a topic");
    return NULL;
  }
  if (options != NULL) t->options = *options;
  t->wake = -1;
  t->deadline = UKSHM__NEVER;
  pthread_mutex_init(&t->lock, NULL);
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_cond_init(&t->changed, &clock);
  pthread_condattr_destroy(&clock);
  if (ukshm__topic_start(t, name, error) == 0) return t;
  ukshm__topic_free(t);
  return NULL;
}

// Waits, with the lock, until something has changed. False: the time is over.
static bool ukshm__await_change(ukshm_topic *t, int64_t deadline) {
  if (deadline == UKSHM__NEVER) return pthread_cond_wait(&t->changed, &t->lock) == 0;
  struct timespec end = {.tv_sec = (time_t)(deadline / 1000),
                         .tv_nsec = (long)(deadline % 1000) * 1000000};
  return pthread_cond_timedwait(&t->changed, &t->lock, &end) == 0;
}

// Whether nobody blocks a message.
static bool ukshm__can_take(const ukshm_topic *t, ukshm__parcel *parcel) {
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (o->state != UKSHM__ACTIVE || o->slow != UKSHM_BLOCK || ukshm__outlet_over(o)) continue;
    if (ukshm__flush_queue(o) && ukshm__finds_room(o, parcel)) continue;
    if (!ukshm__outlet_over(o)) return false;
  }
  return true;
}

static void ukshm__send_to_all(ukshm_topic *t, ukshm__parcel *parcel) {
  parcel->sequence = t->sequence++;
  if (t->options.keep > 0) ukshm__queue_push(&t->kept, parcel, t->plot->granules / 4);
  for (ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (o->state != UKSHM__ACTIVE) continue;
    if (!ukshm__offer(o, parcel)) {
      if (o->slow == UKSHM_DISCONNECT) {
        ukshm__disconnect(t, o);
      } else if (o->slow == UKSHM_DROP_NEWEST) {
        o->dropped++;
      } else {
        ukshm__late(o, parcel);
        ukshm__poke(t);   // the thread sends it when there is room
      }
    }
    if (o->channel->ended) ukshm__poke(t);
  }
}

// One try, with the lock. 1: published; 0: must wait.
static int ukshm__try_publish(ukshm_topic *t, const uint8_t *bytes, uint32_t length) {
  if (length <= t->copied_max) {
    ukshm__parcel parcel = {.bytes = (uint8_t *)(uintptr_t)bytes, .length = length};
    if (!ukshm__can_take(t, &parcel)) return 0;
    ukshm__send_to_all(t, &parcel);
    return 1;
  }
  ukshm__parcel *parcel = ukshm__topic_parcel(t, length);
  if (parcel == NULL) return 0;
  bool free_to_go = ukshm__can_take(t, parcel);
  if (free_to_go) {
    memcpy(parcel->bytes, bytes, length);
    ukshm__send_to_all(t, parcel);
  }
  ukshm__parcel_drop(parcel);
  return free_to_go;
}

static int ukshm__check_length(const ukshm_topic *t, size_t length, ukshm_error *error) {
  if (length <= t->message_max) return 0;
  return ukshm__fail(error, UKSHM_MESSAGE_TOO_LONG, "%zu bytes; the topic '%s' takes up to %u, a "
                     "quarter of arena_bytes: ask for more in ukshm_topic_open", length, t->name,
                     t->message_max);
}

typedef int (*ukshm__attempt)(ukshm_topic *t, ukshm_publication *p);

// Tries until the attempt answers something else than 0, whenever something has changed.
static int ukshm__when(ukshm_topic *t, ukshm__attempt attempt, ukshm_publication *p, int timeout_ms,
                       ukshm_error *error) {
  pthread_mutex_lock(&t->lock);
  int result = attempt(t, p);
  if (result == 0 && timeout_ms != 0) {
    int64_t deadline = ukshm__deadline(timeout_ms);
    bool in_time = true;
    t->waiting++;
    // Whoever can change something must know that somebody waits: the thread tells them.
    ukshm__poke(t);
    while (result == 0 && in_time) {
      in_time = ukshm__await_change(t, deadline);
      result = attempt(t, p);
    }
    t->waiting--;
  }
  pthread_mutex_unlock(&t->lock);
  return result == 0 ? ukshm__timeout(error) : 0;
}

static int ukshm__attempt_copy(ukshm_topic *t, ukshm_publication *p) {
  return ukshm__try_publish(t, p->bytes, (uint32_t)p->length);
}

int ukshm_topic_publish(ukshm_topic *t, const void *bytes, size_t length, int timeout_ms,
                        ukshm_error *error) {
  int result = ukshm__check_length(t, length, error);
  if (result < 0) return result;
  ukshm_publication p = {.bytes = (uint8_t *)(uintptr_t)bytes, .length = length};
  return ukshm__when(t, ukshm__attempt_copy, &p, timeout_ms, error);
}

static int ukshm__attempt_lend(ukshm_topic *t, ukshm_publication *p) {
  p->parcel = ukshm__topic_parcel(t, (uint32_t)p->length);
  if (p->parcel == NULL) return 0;
  p->bytes = p->parcel->bytes;
  p->topic = t;
  return 1;
}

int ukshm_topic_lend(ukshm_topic *t, size_t length, ukshm_publication *p, int timeout_ms,
                     ukshm_error *error) {
  *p = (ukshm_publication){.length = length, .room = length};
  int result = ukshm__check_length(t, length, error);
  if (result < 0) return result;
  if (length > t->copied_max) return ukshm__when(t, ukshm__attempt_lend, p, timeout_ms, error);
  // It is copied to each subscriber anyway.
  p->bytes = malloc(length + 1);
  if (p->bytes == NULL) return ukshm__fail(error, UKSHM_NO_MEMORY, "no memory for a message");
  p->topic = t;
  return 0;
}

// With the lock: the memory of a loan that ends.
static void ukshm__end_publication(ukshm_publication *p) {
  if (p->parcel == NULL) free(p->bytes);
  else ukshm__parcel_drop(p->parcel);
  p->topic = NULL;
}

static int ukshm__attempt_loan(ukshm_topic *t, ukshm_publication *p) {
  int result = 1;
  if (p->parcel != NULL && p->parcel->plot == t->plot) {
    p->parcel->length = (uint32_t)p->length;
    result = ukshm__can_take(t, p->parcel);
    if (result == 1) ukshm__send_to_all(t, p->parcel);
  } else {
    // Small, or the memory was renewed meanwhile, and not everybody has the old one.
    result = ukshm__try_publish(t, p->bytes, (uint32_t)p->length);
  }
  if (result == 1) ukshm__end_publication(p);
  return result;
}

int ukshm_topic_send(ukshm_publication *p, int timeout_ms, ukshm_error *error) {
  if (p->topic == NULL) {
    return ukshm__fail(error, UKSHM_LOAN_USED, "this loan was published or discarded before");
  }
  if (p->length > p->room) {
    return ukshm__fail(error, UKSHM_INVALID_ARGUMENT, "the length is %zu; %zu bytes were lent",
                       p->length, p->room);
  }
  return ukshm__when(p->topic, ukshm__attempt_loan, p, timeout_ms, error);
}

void ukshm_topic_discard(ukshm_publication *p) {
  ukshm_topic *t = p->topic;
  if (t == NULL) return;
  pthread_mutex_lock(&t->lock);
  ukshm__end_publication(p);
  pthread_cond_broadcast(&t->changed);
  pthread_mutex_unlock(&t->lock);
}

void ukshm_topic_numbers(ukshm_topic *t, ukshm_topic_stats *stats) {
  pthread_mutex_lock(&t->lock);
  ukshm__collect_all(t);
  uint64_t bytes = t->plot->base->own_bytes;
  *stats = (ukshm_topic_stats){
      .sequence = t->sequence, .kept = t->kept.count, .message_bytes_max = t->message_max,
      .shared_bytes = bytes,
      .free_bytes = (uint64_t)ukshm__plot_free_granules(t->plot) * UKSHM__GRANULE};
  for (const ukshm__plot *plot = t->retired; plot != NULL; plot = plot->next) {
    stats->shared_bytes += bytes;
  }
  for (const ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (o->state == UKSHM__ACTIVE) stats->subscribers++;
  }
  pthread_mutex_unlock(&t->lock);
}

size_t ukshm_topic_subscribers(ukshm_topic *t, ukshm_subscriber_stats *stats, size_t room) {
  size_t count = 0;
  pthread_mutex_lock(&t->lock);
  ukshm__collect_all(t);
  for (const ukshm__outlet *o = t->outlets; o != NULL; o = o->next) {
    if (o->state != UKSHM__ACTIVE || count++ >= room) continue;
    stats[count - 1] = (ukshm_subscriber_stats){
        .pid = o->channel->peer_pid, .uid = o->channel->peer_uid, .slow = o->slow,
        .depth = o->depth, .outstanding = o->channel->end.leases_out + o->ends_count,
        .queued = o->queue.count, .sent = o->sent, .dropped = o->dropped};
  }
  pthread_mutex_unlock(&t->lock);
  return count;
}

int ukshm_topic_close(ukshm_topic *t, int timeout_ms, ukshm_error *error) {
  if (t == NULL) return 0;
  int64_t deadline = ukshm__deadline(timeout_ms);
  pthread_mutex_lock(&t->lock);
  t->closed = true;
  ukshm__queue_clear(&t->kept);
  ukshm__poke(t);
  // The listener last admitted somebody before it was closed.
  bool in_time = true;
  while ((t->outlets != NULL || t->listener != NULL) && in_time) {
    in_time = ukshm__await_change(t, deadline);
  }
  int result = t->outlets == NULL ? 0 : ukshm__timeout(error);
  t->over = true;
  ukshm__poke(t);
  pthread_mutex_unlock(&t->lock);
  pthread_join(t->thread, NULL);
  ukshm__topic_free(t);
  return result;
}

// ---- For one's own poll loop; numbers -----------------------------------------------------------

int ukshm_fd(const ukshm_channel *c) { return c->poll_fd; }

int ukshm_prepare(ukshm_channel *c, unsigned what) {
  uint32_t head = c->end.head_seen, released = c->end.release_seen;
  ukshm__enter(c);
  ukshm__turn(c, true);
  ukshm__asleep(c, what);
  bool freed = head != c->end.head_seen || released != c->end.release_seen;
  if (((what & UKSHM_SPACE) == 0 || !freed) && !ukshm__news(c, what) &&
      ((what & UKSHM_MESSAGES) == 0 || c->end.position == c->end.tail_seen)) {
    return 0;
  }
  ukshm__awake(c);
  return 1;
}

int ukshm_poll(ukshm_channel *c) {
  ukshm__enter(c);
  ukshm__turn(c, true);
  // Answers to our requests are no message for ukshm_receive: then what waits must be taken in.
  ukshm_message message;
  bool over = c->ended || ukshm__peer_closing(c);
  bool unread = c->end.position != c->end.tail_seen || ukshm__look(&c->end);
  if (unread && c->end.unanswered > 0 && c->aside_bytes < UKSHM__ASIDE_MAX) {
    unread = ukshm__take(c, &message, false, NULL) < 0;
  }
  if (c->end.broken != NULL) ukshm__end_channel(c, UKSHM_PEER_MISBEHAVED);
  return over || unread || c->aside != NULL || c->end.broken != NULL;
}

void ukshm_stats(const ukshm_channel *c, ukshm_channel_stats *stats) {
  const ukshm__end *end = &c->end;
  *stats = c->stats;
  stats->ring_bytes_used = end->tail - end->head_seen;
  stats->chunks_lent = end->leases_out;
  stats->arena_bytes_used = (uint64_t)end->granules_used * UKSHM__GRANULE;
  stats->held_inline = end->inline_held;
  stats->held_chunks = end->leases_held;
  stats->shared_bytes = c->own_bytes + c->peer_bytes;
  stats->message_bytes_max = ukshm__message_max(end);
  stats->peer_uid = c->peer_uid;
  stats->peer_pid = c->peer_pid;
}
#endif  // UKSHM_IMPLEMENTATION
