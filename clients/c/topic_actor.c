// The actor of the project's tests for topics, in C. Every language has one with the same command
// line:
//
//     publish NAME SUBSCRIBERS COUNT KEEP SIZES
//         opens the topic and publishes COUNT messages, in as many equal parts as SUBSCRIBERS has
//         numbers (joined by ','), each part when there are so many subscribers; says "part" before
//         each but the first. The lengths are those of SIZES, in turn. Says "published", and closes
//         the topic when its standard input ends
//     subscribe NAME SLOW DEPTH HOLD
//         reads to the end, keeping up to HOLD messages
//     later NAME SLOW DEPTH HOLD
//         likewise, but reads nothing before its standard input ends; says "reading" at the first
//
// It tells in lines of JSON how it went: ready, then done or error.
#define UKSHM_IMPLEMENTATION
#include "ukshm.h"

_Noreturn static void fail(const char *code, const char *message) {
  printf("{\"event\":\"error\",\"code\":\"%s\",\"message\":\"", code);
  for (const char *at = message; *at != 0; at++) {
    if (*at == '"' || *at == '\\' || (unsigned char)*at < 32) printf("\\u%04x", *at);
    else putchar(*at);
  }
  printf("\"}\n");
  fflush(stdout);
  exit(1);
}

static void check(int result, const ukshm_error *error) {
  if (result < 0) fail(error->code, error->message);
}

static void say(const char *event) {
  printf("{\"event\":\"%s\"}\n", event);
  fflush(stdout);
}

static void input_ends(void) {
  char bytes[256];
  while (read(0, bytes, sizeof bytes) > 0) continue;
}

static uint8_t pattern(uint32_t k, size_t i) {
  return (uint8_t)(k * 131 + (uint32_t)i * 7 + (uint32_t)(i >> 8));
}

static void check_payload(const ukshm_message *message) {
  for (size_t i = 0; i < message->length; i++) {
    if (message->bytes[i] == pattern(message->id, i)) continue;
    char text[120];
    snprintf(text, sizeof text, "byte %zu of message %u (%zu bytes) is wrong", i, message->id,
             message->length);
    fail("ERR_ACTOR_PAYLOAD", text);
  }
}

static int policy(const char *name) {
  for (int i = 0; i < 4; i++) {
    if (strcmp(name, ukshm__policies[i]) == 0) return i;
  }
  fail("ERR_UKSHM_INVALID_ARGUMENT", "no such policy");
}

// Reads to the end. Keeps up to `most` messages; releases the oldest and the newest in turn.
static void subscribe(const char *name, char **arguments, bool later) {
  ukshm_error error;
  ukshm_subscribe_options options = {.slow = policy(arguments[0]), .wait_ms = 20000,
                                     .depth = (uint32_t)strtoul(arguments[1], NULL, 10)};
  size_t most = strtoul(arguments[2], NULL, 10), count = 0;
  ukshm_subscription *s = ukshm_subscribe(name, &options, &error);
  if (s == NULL) check(error.result, &error);
  say("ready");
  if (later) input_ends();
  ukshm_message *held = calloc(most + 1, sizeof *held);
  if (held == NULL) fail("ERR_UKSHM_NO_MEMORY", "no memory");
  unsigned long long messages = 0, bytes = 0;
  long long first = -1;
  int result;
  while ((result = ukshm_topic_receive(s, &held[count], NULL, -1, &error)) == 0) {
    check_payload(&held[count]);
    if (messages++ == 0) {
      first = held[count].id;
      if (later) say("reading");
    }
    bytes += held[count++].length;
    if (count <= most) continue;
    bool oldest = messages % 2 == 0;
    check_payload(oldest ? &held[0] : &held[count - 1]);   // it must not have changed meanwhile
    ukshm_release(oldest ? &held[0] : &held[count - 1]);
    if (oldest) memmove(held, held + 1, (count - 1) * sizeof *held);
    count--;
  }
  for (size_t i = 0; i < count; i++) {
    check_payload(&held[i]);
    ukshm_release(&held[i]);
  }
  free(held);
  ukshm_subscription_stats stats;
  ukshm_subscription_numbers(s, &stats);
  ukshm_unsubscribe(s);
  printf("{\"event\":\"done\",\"messages\":%llu,\"bytes\":%llu,\"first\":%lld,\"missed\":%llu,"
         "\"code\":\"%s\"}\n", messages, bytes, first, (unsigned long long)stats.missed,
         result == UKSHM_PEER_CLOSED ? "end" : error.code);
}

static void fill(uint8_t *bytes, size_t length, uint32_t k) {
  for (size_t i = 0; i < length; i++) bytes[i] = pattern(k, i);
}

static uint32_t subscribers_of(ukshm_topic *topic) {
  ukshm_topic_stats stats;
  ukshm_topic_numbers(topic, &stats);
  return stats.subscribers;
}

// Numbers joined by ','; how many there are.
static size_t numbers(char *text, size_t *values) {
  size_t count = 0;
  char *rest = NULL;
  for (char *one = strtok_r(text, ",", &rest); one != NULL && count < 32;
       one = strtok_r(NULL, ",", &rest)) {
    values[count++] = strtoul(one, NULL, 10);
  }
  return count;
}

static void publish(const char *name, char **arguments) {
  ukshm_error error;
  uint32_t count = (uint32_t)strtoul(arguments[1], NULL, 10);
  ukshm_topic_options options = {.may_block = true,
                                 .keep = (uint32_t)strtoul(arguments[2], NULL, 10)};
  size_t waits[32], sizes[32];
  size_t wait_count = numbers(arguments[0], waits), size_count = numbers(arguments[3], sizes);
  ukshm_topic *topic = ukshm_topic_open(name, &options, &error);
  if (topic == NULL) check(error.result, &error);
  say("ready");
  unsigned long long bytes = 0;
  uint8_t *copy = malloc(1 << 22);
  if (copy == NULL) fail("ERR_UKSHM_NO_MEMORY", "no memory");
  for (uint32_t k = 0; k < count; k++) {
    size_t part = (size_t)k * wait_count / count;
    bool starts = k == 0 || (size_t)(k - 1) * wait_count / count != part;
    if (starts && k > 0) say("part");
    while (starts && subscribers_of(topic) < waits[part]) usleep(2000);
    size_t size = sizes[k % size_count];
    if (k % 2 == 0) {
      fill(copy, size, k);
      check(ukshm_topic_publish(topic, copy, size, -1, &error), &error);
    } else {
      ukshm_publication publication;
      check(ukshm_topic_lend(topic, size + 10, &publication, -1, &error), &error);
      fill(publication.bytes, size, k);
      publication.length = size;
      check(ukshm_topic_send(&publication, -1, &error), &error);
      ukshm_topic_discard(&publication);
    }
    bytes += size;
  }
  free(copy);
  printf("{\"event\":\"published\",\"subscribers\":%u}\n", subscribers_of(topic));
  fflush(stdout);
  input_ends();
  int result = ukshm_topic_close(topic, 1000, &error);
  if (result != UKSHM_TIMEOUT) check(result, &error);
  printf("{\"event\":\"done\",\"messages\":%u,\"bytes\":%llu}\n", count, bytes);
}

int main(int argc, char **argv) {
  if (argc == 7 && strcmp(argv[1], "publish") == 0) {
    publish(argv[2], argv + 3);
  } else if (argc == 6 && strcmp(argv[1], "subscribe") == 0) {
    subscribe(argv[2], argv + 3, false);
  } else if (argc == 6 && strcmp(argv[1], "later") == 0) {
    subscribe(argv[2], argv + 3, true);
  } else {
    fail("ERR_UKSHM_INVALID_ARGUMENT", "usage: topic_actor publish|subscribe|later NAME …");
  }
  return 0;
}
