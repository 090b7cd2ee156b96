// Unix sockets: socket(2), sendmsg(2) with descriptors, getsockopt(2) for credentials.
#include "addon.h"

#include <sys/socket.h>
#include <sys/un.h>

/// The most descriptors in one message: the kernel's SCM_MAX_FD. A channel passes two.
#define DESCRIPTORS_MAX 253

static napi_value descriptor_answer(napi_env env, int fd) {
  int saved = errno;
  own_descriptor(env, fd);
  errno = saved;
  return answer(env, fd);
}

static napi_value call_socket(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return descriptor_answer(env, socket((int)integer(env, argument[0]),
                                       (int)integer(env, argument[1]),
                                       (int)integer(env, argument[2])));
}

static napi_value call_bind(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  const struct sockaddr *address = view(env, argument[1], &length_bytes);
  return answer(env, bind((int)integer(env, argument[0]), address, (socklen_t)length_bytes));
}

static napi_value call_connect(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  const struct sockaddr *address = view(env, argument[1], &length_bytes);
  return answer(env, connect((int)integer(env, argument[0]), address, (socklen_t)length_bytes));
}

static napi_value call_listen(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, listen((int)integer(env, argument[0]), (int)integer(env, argument[1])));
}

static napi_value call_accept4(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return descriptor_answer(env, accept4((int)integer(env, argument[0]), NULL, NULL,
                                        (int)integer(env, argument[1])));
}

/// send(fd, bytes, flags)
static napi_value call_send(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  const void *bytes = view(env, argument[1], &length_bytes);
  return answer(env, send((int)integer(env, argument[0]), bytes, length_bytes,
                          (int)integer(env, argument[2])));
}

/// recv(fd, bytes, flags): no control buffer, so a passed descriptor is never installed here.
static napi_value call_recv(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  void *bytes = view(env, argument[1], &length_bytes);
  return answer(env, recv((int)integer(env, argument[0]), bytes, length_bytes,
                          (int)integer(env, argument[2])));
}

/// sendDescriptors(fd, bytes, descriptors: Int32Array, flags)
static napi_value call_send_descriptors(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  size_t fds_bytes;
  void *bytes = view(env, argument[1], &length_bytes);
  const void *fds = view(env, argument[2], &fds_bytes);
  if (fds_bytes > DESCRIPTORS_MAX * sizeof(int)) return number(env, -EINVAL);
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  memset(control.bytes, 0, CMSG_SPACE(fds_bytes));
  struct iovec vector = {bytes, length_bytes};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (fds_bytes > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(fds_bytes);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds_bytes);
    memcpy(CMSG_DATA(header), fds, fds_bytes);
  }
  return answer(env, sendmsg((int)integer(env, argument[0]), &message,
                             (int)integer(env, argument[3])));
}

/// recvDescriptors(fd, bytes, descriptors: Int32Array, flags): fills `descriptors` from its start
/// with those that came, and the rest with -1. MSG_CMSG_CLOEXEC is always set.
static napi_value call_recv_descriptors(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t length_bytes;
  size_t fds_bytes;
  void *bytes = view(env, argument[1], &length_bytes);
  int *fds = view(env, argument[2], &fds_bytes);
  if (fds_bytes > DESCRIPTORS_MAX * sizeof(int)) return number(env, -EINVAL);
  memset(fds, 0xff, fds_bytes);
  union {
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  memset(control.bytes, 0, CMSG_SPACE(fds_bytes));
  struct iovec vector = {bytes, length_bytes};
  // CMSG_LEN, not CMSG_SPACE: in the space's padding the kernel would install one descriptor more.
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes,
                           .msg_controllen = CMSG_LEN(fds_bytes)};
  ssize_t result = recvmsg((int)integer(env, argument[0]), &message,
                           (int)integer(env, argument[3]) | MSG_CMSG_CLOEXEC);
  if (result < 0) return answer(env, -1);
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      own_descriptor(env, fd);
      if (i < fds_bytes / sizeof fd) fds[i] = fd;
    }
  }
  return number(env, (double)result);
}

static napi_value call_setsockopt(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  int value = (int)integer(env, argument[3]);
  return answer(env, setsockopt((int)integer(env, argument[0]), (int)integer(env, argument[1]),
                                (int)integer(env, argument[2]), &value, sizeof value));
}

/// getsockopt(fd, level, option, words: Int32Array): the length of what was written, in bytes.
static napi_value call_getsockopt(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  size_t capacity_bytes;
  void *words = view(env, argument[3], &capacity_bytes);
  socklen_t length_bytes = (socklen_t)capacity_bytes;
  int option = (int)integer(env, argument[2]);
  int result = getsockopt((int)integer(env, argument[0]), (int)integer(env, argument[1]), option,
                          words, &length_bytes);
  return answer(env, result == 0 ? (int64_t)length_bytes : -1);
}

static napi_value call_shutdown(napi_env env, napi_callback_info info) {
  napi_value argument[ARGUMENTS_MAX];
  arguments(env, info, argument);
  return answer(env, shutdown((int)integer(env, argument[0]), (int)integer(env, argument[1])));
}

const export_entry socket_exports[] = {
    {"socket", call_socket},
    {"bind", call_bind},
    {"connect", call_connect},
    {"listen", call_listen},
    {"accept4", call_accept4},
    {"send", call_send},
    {"recv", call_recv},
    {"sendDescriptors", call_send_descriptors},
    {"recvDescriptors", call_recv_descriptors},
    {"setsockopt", call_setsockopt},
    {"getsockopt", call_getsockopt},
    {"shutdown", call_shutdown},
    {NULL, NULL},
};
