// Says, before the process dies of it, which mapping a forbidden access hit.
//
// A JavaScript write to a page mapped read-only, or a walk into a guard page, is a SIGSEGV that
// nothing can catch. The handler looks the address up in a fixed table (no lock, no allocation:
// it runs in signal context), writes one line to standard error, and hands the signal on to
// whoever had it before (V8's WebAssembly handler), so the process ends as it would have.
#include "addon.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/// Mappings known at a time; a region beyond works, its fault is just not explained.
#define MAPPINGS_MAX 16384
#define TEXT_BYTES 224

typedef struct {
  _Atomic uintptr_t start;  // 0: the entry is free; written last when taken, first when freed
  uintptr_t end;
  char text[TEXT_BYTES];
} mapping;

static mapping known[MAPPINGS_MAX];
static _Atomic size_t known_count;
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static bool installed;

static void put(const char *text) {
  ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
  (void)ignored;
}

static void hand_on(int signal_number, siginfo_t *info, void *context) {
  if ((previous.sa_flags & SA_SIGINFO) && previous.sa_sigaction != NULL) {
    previous.sa_sigaction(signal_number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal_number);
  } else {
    // Back to the default; on return the access faults again and the process ends.
    sigaction(signal_number, &previous, NULL);
  }
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  uintptr_t address = (uintptr_t)info->si_addr;
  size_t count = atomic_load(&known_count);
  const mapping *closest = NULL;  // the smallest that holds the address: a mapping, not its guards
  for (size_t i = 0; i < count; i++) {
    uintptr_t start = atomic_load(&known[i].start);
    if (start == 0 || address < start || address >= known[i].end) continue;
    if (closest == NULL || known[i].end - start < closest->end - closest->start)
      closest = &known[i];
  }
  if (closest != NULL) put(closest->text);
  hand_on(signal_number, info, context);
}

static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  installed = sigaction(SIGSEGV, &action, &previous) == 0;
}

/// explainFault(start, end, text): what to say of a fault in [start, end); text ends in a newline.
static napi_value call_explain_fault(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  pthread_mutex_lock(&writers);
  if (!installed) install();
  size_t count = atomic_load(&known_count);
  size_t i = 0;
  while (i < count && atomic_load(&known[i].start) != 0) i++;
  if (i < MAPPINGS_MAX) {
    known[i].end = (uintptr_t)integer(env, argument[1]);
    size_t length = 0;
    napi_get_value_string_utf8(env, argument[2], known[i].text, TEXT_BYTES, &length);
    if (length > 0) known[i].text[length - 1] = '\n';  // a long text was cut off
    atomic_store(&known[i].start, (uintptr_t)integer(env, argument[0]));
    if (i == count) atomic_store(&known_count, count + 1);
  }
  pthread_mutex_unlock(&writers);
  return NULL;
}

void forget_mapping(uintptr_t address, size_t length_bytes) {
  pthread_mutex_lock(&writers);
  size_t count = atomic_load(&known_count);
  for (size_t i = 0; i < count; i++) {
    uintptr_t start = atomic_load(&known[i].start);
    if (start >= address && start - address < length_bytes) atomic_store(&known[i].start, 0);
  }
  while (count > 0 && atomic_load(&known[count - 1].start) == 0) count--;
  atomic_store(&known_count, count);
  pthread_mutex_unlock(&writers);
}

const export_entry fault_exports[] = {
    {"explainFault", call_explain_fault},
    {NULL, NULL},
};
