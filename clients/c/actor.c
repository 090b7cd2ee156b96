// The actor of the project's tests, in C: `actor listen|connect NAME ROLE [ARGS]` plays one side of
// a channel and tells in lines of JSON how it went; `actor vectors FILE` checks what this client
// makes of given bytes. Every language has one with the same command line.
//
//     echo            sends each message back until the peer closes, and answers requests
//     ask             sends messages of many sizes to an echo and compares
//     request         likewise, by requests
//     source N SIZE   sends N messages
//     sink            receives until the peer closes, and checks
//     hold N          likewise, but keeps up to N messages, and releases out of order
//     forward TARGET  hands every message on to a second channel, to the listener TARGET
//     stall           never reads; ends with its standard input
#define UKSHM_IMPLEMENTATION
#include "ukshm.h"

static uint64_t message_count, byte_count;

static void say_string(const char *text) {
  putchar('"');
  for (; *text != 0; text++) {
    if (*text == '"' || *text == '\\' || (unsigned char)*text < 32) printf("\\u%04x", *text);
    else putchar(*text);
  }
  putchar('"');
}

_Noreturn static void fail(const char *code, const char *message) {
  printf("{\"event\":\"error\",\"code\":\"%s\",\"message\":", code);
  say_string(message);
  printf("}\n");
  fflush(stdout);
  exit(1);
}

static void check(int result, const ukshm_error *error) {
  if (result < 0) fail(error->code, error->message);
}

static void say_ready(void) {
  printf("{\"event\":\"ready\"}\n");
  fflush(stdout);
}

// ---- The payload --------------------------------------------------------------------------------

static uint8_t pattern(uint32_t k, size_t i) {
  return (uint8_t)(k * 131 + (uint32_t)i * 7 + (uint32_t)(i >> 8));
}

static void fill(uint8_t *bytes, size_t length, uint32_t k) {
  for (size_t i = 0; i < length; i++) bytes[i] = pattern(k, i);
}

static void check_payload(const ukshm_message *message, uint32_t k) {
  char text[120];
  for (size_t i = 0; i < message->length; i++) {
    if (message->bytes[i] == pattern(k, i)) continue;
    snprintf(text, sizeof text, "byte %zu of message %u (%zu bytes) is wrong", i, k,
             message->length);
    fail("ERR_ACTOR_PAYLOAD", text);
  }
}

static void send_pattern(ukshm_channel *c, size_t length, uint32_t k, uint32_t type, uint32_t id) {
  ukshm_error error;
  ukshm_open_loan loan;
  check(ukshm_loan(c, length, &loan, -1, &error), &error);
  fill(loan.bytes, length, k);
  loan.type = type;
  loan.id = id;
  check(ukshm_send_loan(&loan, true, &error), &error);
}

// The next message; false when the peer has closed.
static bool next(ukshm_channel *c, ukshm_message *message) {
  ukshm_error error;
  int result = ukshm_receive(c, message, -1, &error);
  if (result == UKSHM_PEER_CLOSED) return false;
  check(result, &error);
  message_count++;
  byte_count += message->length;
  return true;
}

// ---- Roles --------------------------------------------------------------------------------------

static void echo(ukshm_channel *c) {
  ukshm_error error;
  ukshm_message message;
  while (next(c, &message)) {
    const uint8_t *bytes = message.bytes;
    size_t length = message.length;
    if (message.request) {
      check(ukshm_reply(&message, bytes, length, message.type, -1, &error), &error);
    } else {
      check(ukshm_send(c, bytes, length, message.type, message.id, -1, &error), &error);
      ukshm_release(&message);
    }
  }
}

static const size_t sizes[] = {0,    1,    7,    8,     9,     63,     64,      65,     1000,
                               4096, 8192, 8193, 65520, 65521, 100000, 1048576, 3000000};
enum { SIZE_COUNT = sizeof sizes / sizeof *sizes, SMALL_COUNT = 3000, IN_FLIGHT = 8 };

static void check_echo(ukshm_message *echoed, size_t length, uint32_t k, uint32_t type,
                       uint32_t id) {
  ukshm_message message = *echoed;
  if (message.length != length || message.type != type || message.id != id) {
    char text[160];
    snprintf(text, sizeof text, "message %u: length %zu, type %u, id %u; expected %zu, %u, %u", k,
             message.length, message.type, message.id, length, type, id);
    fail("ERR_ACTOR_PAYLOAD", text);
  }
  check_payload(&message, k);
  ukshm_release(echoed);
}

static void expect_echo(ukshm_channel *c, size_t length, uint32_t k, uint32_t type, uint32_t id) {
  ukshm_message message;
  if (!next(c, &message)) fail("ERR_UKSHM_PEER_CLOSED", "the echo closed");
  check_echo(&message, length, k, type, id);
}

static void ask(ukshm_channel *c) {
  for (uint32_t k = 0; k < SIZE_COUNT; k++) {
    send_pattern(c, sizes[k], k, k, 1000 + k);
    expect_echo(c, sizes[k], k, k, 1000 + k);
  }
  uint32_t sent = 0;
  for (uint32_t k = 0; k < SMALL_COUNT; k++) {
    for (; sent < SMALL_COUNT && sent < k + IN_FLIGHT; sent++) {
      send_pattern(c, (sent * 37) % 5000, sent, 1, sent);
    }
    expect_echo(c, (k * 37) % 5000, k, 1, k);
  }
}

// Sends request k and remembers its number.
static void request_pattern(ukshm_channel *c, size_t length, uint32_t k, uint32_t *id) {
  ukshm_error error;
  ukshm_open_loan loan;
  check(ukshm_loan(c, length, &loan, -1, &error), &error);
  fill(loan.bytes, length, k);
  loan.type = k % 1000;
  check(ukshm_ask_loan(&loan, id, &error), &error);
}

static void expect_reply(ukshm_channel *c, size_t length, uint32_t k, uint32_t id) {
  ukshm_error error;
  ukshm_message message;
  check(ukshm_await(c, id, &message, -1, &error), &error);
  message_count++;
  byte_count += message.length;
  check_echo(&message, length, k, k % 1000, id);
}

static void request(ukshm_channel *c) {
  uint32_t ids[IN_FLIGHT], sent = 0;
  for (uint32_t k = 0; k < SIZE_COUNT; k++) {
    request_pattern(c, sizes[k], k, &ids[0]);
    expect_reply(c, sizes[k], k, ids[0]);
  }
  for (uint32_t k = 0; k < SMALL_COUNT; k++) {
    for (; sent < SMALL_COUNT && sent < k + IN_FLIGHT; sent++) {
      request_pattern(c, (sent * 37) % 5000, sent, &ids[sent % IN_FLIGHT]);
    }
    expect_reply(c, (k * 37) % 5000, k, ids[k % IN_FLIGHT]);
  }
}

static void source(ukshm_channel *c, uint32_t count, size_t size) {
  for (uint32_t k = 0; k < count; k++) send_pattern(c, size, k, 1, k);
  message_count = count;
  byte_count = (uint64_t)count * size;
}

// Keeps up to `most` messages; releases the oldest and the newest in turn. When nothing more comes
// in a while, what is held may be all that fits: then the oldest goes.
static void hold(ukshm_channel *c, size_t most) {
  ukshm_error error;
  ukshm_message *held = calloc(most + 1, sizeof *held);
  size_t count = 0;
  if (held == NULL) fail("ERR_UKSHM_NO_MEMORY", "no memory");
  for (bool oldest = true;; oldest = !oldest) {
    int result = ukshm_receive(c, &held[count], count > 0 ? 50 : -1, &error);
    if (result == UKSHM_PEER_CLOSED) break;
    if (result == 0) {
      check_payload(&held[count], held[count].id);
      message_count++;
      byte_count += held[count++].length;
    } else if (result == UKSHM_TIMEOUT) {
      oldest = true;
    } else {
      check(result, &error);
    }
    if (result == 0 && count <= most) continue;
    // It was read when it came; it must not have changed since.
    ukshm_message *message = oldest ? &held[0] : &held[count - 1];
    check_payload(message, message->id);
    ukshm_release(message);
    if (oldest) memmove(held, held + 1, (count - 1) * sizeof *held);
    count--;
  }
  for (size_t i = 0; i < count; i++) ukshm_release(&held[i]);
  free(held);
}

static void forward(ukshm_channel *c, const char *target) {
  ukshm_error error;
  ukshm_message message;
  ukshm_channel *to = ukshm_connect(target, &(ukshm_connect_options){.wait_ms = 20000}, &error);
  if (to == NULL) check(error.result, &error);
  while (next(c, &message)) check(ukshm_forward(&message, to, -1, &error), &error);
  check(ukshm_close(to, -1, &error), &error);
}

static void play(ukshm_channel *c, const char *role, char **arguments, int count) {
  if (strcmp(role, "echo") == 0) {
    echo(c);
  } else if (strcmp(role, "ask") == 0) {
    ask(c);
  } else if (strcmp(role, "request") == 0) {
    request(c);
  } else if (strcmp(role, "source") == 0 && count == 2) {
    source(c, (uint32_t)strtoul(arguments[0], NULL, 10), strtoul(arguments[1], NULL, 10));
  } else if (strcmp(role, "sink") == 0) {
    ukshm_message message;
    while (next(c, &message)) {
      check_payload(&message, message.id);
      ukshm_release(&message);
    }
  } else if (strcmp(role, "hold") == 0 && count == 1) {
    hold(c, strtoul(arguments[0], NULL, 10));
  } else if (strcmp(role, "forward") == 0 && count == 1) {
    forward(c, arguments[0]);
  } else if (strcmp(role, "stall") == 0) {
    char bytes[256];
    while (read(0, bytes, sizeof bytes) > 0) continue;
    exit(0);
  } else {
    fail("ERR_UKSHM_INVALID_ARGUMENT", "no such role, or not its arguments");
  }
}

// ---- Test vectors: one a line, see vectors/vectors.txt -----------------------------------
//
// HEX: segments of lower-case hex joined by '.'; `00x102`: a byte and how often; `-`: nothing.

typedef struct {
  uint8_t *data;
  size_t length;
} Bytes;

static Bytes from_hex(const char *hex) {
  size_t room = 16;
  Bytes bytes = {malloc(room), 0};
  if (strcmp(hex, "-") == 0) return bytes;
  while (*hex != 0 && bytes.data != NULL) {
    if (*hex == '.') {
      hex++;
      continue;
    }
    unsigned value = 0;
    size_t times = 1;
    if (sscanf(hex, "%2x", &value) != 1) fail("ERR_ACTOR_VECTOR", hex);
    hex += 2;
    if (*hex == 'x') times = strtoul(hex + 1, (char **)(uintptr_t)&hex, 10);
    if (bytes.length + times > room) {
      room = (bytes.length + times) * 2;
      uint8_t *more = realloc(bytes.data, room);
      if (more == NULL) free(bytes.data);
      bytes.data = more;
    }
    if (bytes.data != NULL) memset(bytes.data + bytes.length, (int)value, times);
    bytes.length += times;
  }
  if (bytes.data == NULL) fail("ERR_UKSHM_NO_MEMORY", "no memory");
  return bytes;
}

static void put_hex(FILE *out, const uint8_t *bytes, size_t length) {
  if (length == 0) fputc('-', out);
  for (size_t i = 0; i < length; i++) fprintf(out, "%02x", bytes[i]);
}

// What was expected, with its HEX written out, so that it can be compared as text.
static char *expand(const char *expected) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  while (*expected != 0) {
    size_t length = strcspn(expected, ",=/:");
    char *token = strndup(expected, length);
    if (strpbrk(token, ".x") != NULL) {
      Bytes bytes = from_hex(token);
      put_hex(out, bytes.data, bytes.length);
      free(bytes.data);
    } else {
      fputs(token, out);
    }
    free(token);
    expected += length;
    if (*expected != 0) fputc(*expected++, out);
  }
  fclose(out);
  return text;
}

static void vector_hello(FILE *out, const char *hex) {
  Bytes bytes = from_hex(hex);
  ukshm__hello h;
  uint32_t status = ukshm__decode_hello(bytes.data, &h);
  if (status != 0) {
    fprintf(out, "refused:%u", status);
  } else {
    fprintf(out, "ok:kind=%u,flags=%u,sendRing=%u,sendArena=%u,receiveRing=%u,receiveArena=%u,",
            h.kind, h.flags, h.send_ring, h.send_arena, h.receive_ring, h.receive_arena);
    fputs("token=", out);
    put_hex(out, h.token, 8);
    fputs(",address=", out);
    put_hex(out, h.address, h.address_length);
  }
  free(bytes.data);
}

static void vector_welcome(FILE *out, const char *hex) {
  Bytes bytes = from_hex(hex);
  ukshm__welcome w;
  ukshm_error error;
  if (ukshm__decode_welcome(bytes.data, &w, &error) < 0) {
    fprintf(out, "error:%s", error.code);
  } else {
    fprintf(out, "ok:flags=%u,ring=%u,arena=%u,backRing=%u,backArena=%u,token=", w.flags, w.ring,
            w.arena, w.back_ring, w.back_arena);
    put_hex(out, w.token, 8);
  }
  free(bytes.data);
}

static void vector_frames(FILE *out, const char *hex) {
  Bytes bytes = from_hex(hex);
  ukshm__frames frames = {.have = 0};
  const uint8_t *at = bytes.data, *f = frames.frame;
  size_t left = bytes.length;
  const char *comma = "";
  int result;
  while ((result = ukshm__next_frame(&frames, &at, &left)) == 1) {
    uint32_t number = ukshm__get32(f + 1);
    fputs(comma, out);
    comma = ",";
    if (f[0] == UKSHM__F_RING) fputs("ring", out);
    if (f[0] == UKSHM__F_IMPORTED) fprintf(out, "imported/%u/%u", number, ukshm__get32(f + 5));
    if (f[0] == UKSHM__F_DROP) fprintf(out, "drop/%u", number);
    if (f[0] != UKSHM__F_IMPORT) continue;
    fprintf(out, "import/%u/%u/", number, ukshm__get32(f + 13));
    put_hex(out, f + 5, 8);
    fputc('/', out);
    put_hex(out, f + 21, ukshm__get32(f + 17));
  }
  if (result < 0) fprintf(out, "%sbroken", comma);
  free(bytes.data);
}

// An end without a socket: both outboxes of these sizes, in ordinary memory.
static void open_end(ukshm__end *end, const char *ring, const char *arena) {
  *end = (ukshm__end){0};
  uint32_t ring_bytes = (uint32_t)strtoul(ring, NULL, 10);
  if (!ukshm__layout(&end->out, ring_bytes, (uint32_t)strtoul(arena, NULL, 10))) {
    fail("ERR_ACTOR_VECTOR", "impossible sizes");
  }
  end->in = end->out;
  end->own = calloc(1, end->out.total);
  end->peer = calloc(1, end->in.total);
  if (end->own == NULL || end->peer == NULL || !ukshm__end_start(end)) {
    fail("ERR_UKSHM_NO_MEMORY", "no memory");
  }
}

static void close_end(ukshm__end *end) {
  free(end->own);
  free((void *)(uintptr_t)end->peer);
  ukshm__end_free(end);
}

static void patch(const uint8_t *memory, size_t size, char *patches) {
  char *rest = NULL;
  if (strcmp(patches, "-") == 0) return;
  for (char *one = strtok_r(patches, ";", &rest); one != NULL; one = strtok_r(NULL, ";", &rest)) {
    char *hex;
    size_t offset = strtoul(one, &hex, 10);
    Bytes bytes = from_hex(hex + 1);
    if (offset + bytes.length > size) fail("ERR_ACTOR_VECTOR", "a patch is outside");
    memcpy((uint8_t *)(uintptr_t)memory + offset, bytes.data, bytes.length);
    free(bytes.data);
  }
}

static void read_all(FILE *out, ukshm__end *from) {
  ukshm_message message;
  const char *comma = "";
  int result;
  while ((result = ukshm__next(from, &message)) == 1) {
    fprintf(out, "%s%s%u/%u/", comma, message.request ? "q" : "", message.type, message.id);
    put_hex(out, message.bytes, message.length);
    comma = ",";
    if (message.lease == UKSHM__INLINE) ukshm__release_inline(from, message.serial);
    else ukshm__give_back(from, message.lease, message.generation);
  }
  if (result < 0) fprintf(out, "%sbroken", comma);
  else if (*comma == 0) fputc('-', out);
}

static void vector_reader(FILE *out, char **fields) {
  ukshm__end end;
  open_end(&end, fields[0], fields[1]);
  patch(end.peer, end.in.total, fields[2]);
  read_all(out, &end);
  close_end(&end);
}

static void vector_shared(FILE *out, char **fields) {
  ukshm__end end;
  ukshm__sizes sizes;
  open_end(&end, fields[0], fields[1]);
  patch(end.peer, end.in.total, fields[3]);
  if (!ukshm__layout(&sizes, 4096, (uint32_t)strtoul(fields[2], NULL, 10))) {
    fail("ERR_ACTOR_VECTOR", "impossible sizes");
  }
  uint8_t *memory = calloc(1, sizes.total);
  if (memory == NULL) fail("ERR_UKSHM_NO_MEMORY", "no memory");
  patch(memory, sizes.total, fields[4]);
  ukshm__region region = {.number = 1, .total = sizes.total, .base = memory};
  end.regions[end.region_count++] = &region;
  read_all(out, &end);
  close_end(&end);
  free(memory);
}

static void vector_request(FILE *out, char **fields) {
  ukshm_topic topic = {.name = fields[0], .options = {.may_block = strcmp(fields[1], "1") == 0}};
  ukshm__outlet outlet = {.depth = 0};
  ukshm_error error;
  Bytes bytes = from_hex(fields[3]);
  uint32_t type = (uint32_t)strtoul(fields[2], NULL, 10);
  int result = ukshm__wishes(&topic, &outlet, type, bytes.data, bytes.length, &error);
  if (result == 1) fputs("broken", out);
  else if (result < 0) fprintf(out, "refused:%s", error.code);
  else fprintf(out, "ok:slow=%s,depth=%u", ukshm__policies[outlet.slow], outlet.depth);
  free(bytes.data);
}

static void vector_answer(FILE *out, char **fields) {
  ukshm_subscription s = {.name = fields[0]};
  ukshm_error error;
  const char *lie;
  Bytes bytes = from_hex(fields[1]);
  uint32_t type = (uint32_t)strtoul(fields[0], NULL, 10);
  int result = ukshm__answer(&s, type, bytes.data, bytes.length, &lie, &error);
  if (result == 1) fprintf(out, "error:%s", ukshm__code(UKSHM_PEER_MISBEHAVED));
  else if (result < 0) fprintf(out, "error:%s", error.code);
  else fprintf(out, "ok:number=%u,kept=%u", s.next, s.kept);
  free(bytes.data);
}

static void vector_word(FILE *out, char **fields) {
  ukshm_subscription s = {.name = fields[0], .next = 5};
  const char *lie;
  Bytes bytes = from_hex(fields[1]);
  uint32_t type = (uint32_t)strtoul(fields[0], NULL, 10);
  if (!ukshm__last_word(&s, type, bytes.data, bytes.length, &lie)) {
    fputs("broken", out);
  } else {
    fprintf(out, "ok:missed=%llu,code=%s", (unsigned long long)s.missed,
            s.end.result == 0 ? "none" : s.end.code);
  }
  free(bytes.data);
}

static void vector_writer(FILE *out, char **fields) {
  ukshm__end end;
  open_end(&end, fields[0], fields[1]);
  char *rest = NULL, *sends = fields[2];
  uint32_t k = 0;
  if (strcmp(sends, "-") == 0) sends = "";
  for (char *one = strtok_r(strdupa(sends), ",", &rest); one != NULL;
       one = strtok_r(NULL, ",", &rest)) {
    ukshm_open_loan loan;
    if (!ukshm__lend(&end, (uint32_t)strtoul(one, NULL, 10), &loan)) {
      fail("ERR_ACTOR_VECTOR", "the messages do not fit");
    }
    fill(loan.bytes, loan.length, k++);
    ukshm__end_loan(&end, &loan, true, 0, 0);
    ukshm__publish(&end);
  }
  patch(end.peer, end.in.total, fields[3]);
  if (ukshm__collect(&end) < 0) fputs("broken", out);
  else fprintf(out, "used=%u,leased=%u", end.tail - end.head_seen, end.leases_out);
  close_end(&end);
}

static void vector_line(char *line) {
  char *fields[9] = {NULL}, *rest = NULL, *seen = NULL;
  int count = 0;
  for (char *f = strtok_r(line, " ", &rest); f != NULL; f = strtok_r(NULL, " ", &rest)) {
    if (count < 8) fields[count++] = f;
  }
  if (count < 4) fail("ERR_ACTOR_VECTOR", "a line has too few fields");
  const char *kind = fields[0];
  size_t size;
  FILE *out = open_memstream(&seen, &size);
  if (strcmp(kind, "hello") == 0) vector_hello(out, fields[2]);
  if (strcmp(kind, "welcome") == 0) vector_welcome(out, fields[2]);
  if (strcmp(kind, "ack") == 0) {
    Bytes bytes = from_hex(fields[2]);
    fputs(ukshm__is_ack(bytes.data) ? "ok" : "broken", out);
    free(bytes.data);
  }
  if (strcmp(kind, "frames") == 0) vector_frames(out, fields[2]);
  if (strcmp(kind, "reader") == 0 && count == 6) vector_reader(out, fields + 2);
  if (strcmp(kind, "writer") == 0 && count == 7) vector_writer(out, fields + 2);
  if (strcmp(kind, "shared") == 0 && count == 8) vector_shared(out, fields + 2);
  if (strcmp(kind, "request") == 0 && count == 7) vector_request(out, fields + 2);
  if (strcmp(kind, "answer") == 0 && count == 5) vector_answer(out, fields + 2);
  if (strcmp(kind, "word") == 0 && count == 5) vector_word(out, fields + 2);
  fclose(out);
  char *expected = expand(fields[count - 1]);
  if (strcmp(expected, seen) != 0) {
    char *text = NULL;
    if (asprintf(&text, "%s %s: expected %s, saw %s", kind, fields[1], expected, seen) < 0) exit(1);
    fail("ERR_ACTOR_VECTOR", text);
  }
  free(expected);
  free(seen);
}

static void vectors(const char *path) {
  FILE *file = fopen(path, "r");
  if (file == NULL) fail("ERR_UKSHM_SYSCALL", "the vectors cannot be opened");
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, file) >= 0) {
    line[strcspn(line, "\r\n")] = 0;
    if (*line == 0 || *line == '#') continue;
    vector_line(line);
    message_count++;
  }
  free(line);
  fclose(file);
}

// ---- The command line ---------------------------------------------------------------------------

int main(int argc, char **argv) {
  ukshm_error error;
  if (argc == 3 && strcmp(argv[1], "vectors") == 0) {
    vectors(argv[2]);
  } else if (argc >= 4) {
    ukshm_listener *listener = NULL;
    ukshm_channel *channel;
    if (strcmp(argv[1], "listen") == 0) {
      listener = ukshm_listen(argv[2], NULL, &error);
      if (listener == NULL) check(error.result, &error);
      say_ready();
      channel = ukshm_accept(listener, -1, &error);
    } else {
      channel = ukshm_connect(argv[2], &(ukshm_connect_options){.wait_ms = 20000}, &error);
    }
    if (channel == NULL) check(error.result, &error);
    if (listener == NULL) say_ready();
    play(channel, argv[3], argv + 4, argc - 4);
    check(ukshm_close(channel, -1, &error), &error);
    ukshm_listener_close(listener);
  } else {
    fail("ERR_UKSHM_INVALID_ARGUMENT", "usage: actor listen|connect NAME ROLE [ARGS]");
  }
  printf("{\"event\":\"done\",\"messages\":%llu,\"bytes\":%llu}\n",
         (unsigned long long)message_count, (unsigned long long)byte_count);
  return 0;
}
