// Processes: pidfd_open(2), prlimit(2), adoption of a descriptor that another call returned.
#include "addon.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static napi_value call_pidfd_open(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int fd = (int)syscall(SYS_pidfd_open, (int)integer(env, argument[0]), 0);
  int saved = errno;
  own_descriptor(env, fd);
  errno = saved;
  return answer(env, fd);
}

/// own(fd): this environment answers for a descriptor that an option or message brought.
static napi_value call_own(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  own_descriptor(env, (int)integer(env, argument[0]));
  return NULL;
}

/// getrlimit(resource): the soft limit; Infinity where there is none.
static napi_value call_getrlimit(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  struct rlimit limit;
  if (syscall(SYS_prlimit64, 0, (int)integer(env, argument[0]), NULL, &limit) != 0)
    return number(env, -(double)errno);
  if (limit.rlim_cur == RLIM_INFINITY) return number(env, 1e308);
  return number(env, (double)limit.rlim_cur);
}

/// probeSyscall(number, a, b, c): the raw answer of a call made with harmless arguments, so that
/// TypeScript can tell ENOSYS (absent) and EPERM (forbidden) from EINVAL and EFAULT (there).
static napi_value call_probe(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  long result = syscall((long)integer(env, argument[0]), (long)integer(env, argument[1]),
                        (long)integer(env, argument[2]), (long)integer(env, argument[3]));
  return answer(env, result);
}

const export_entry process_exports[] = {
    {"pidfdOpen", call_pidfd_open},
    {"own", call_own},
    {"getrlimit", call_getrlimit},
    {"probeSyscall", call_probe},
    {NULL, NULL},
};
