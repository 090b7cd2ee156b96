// Two processes that share memory: the parent listens and sends, the child connects and receives.
//
//     cc -std=gnu11 -O2 -pthread example.c -o example && ./example
#define UKSHM_IMPLEMENTATION   // in one file of a program
#include "ukshm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void give_up(const ukshm_error *error) {
  fprintf(stderr, "%s: %s\n", error->code, error->message);
  exit(1);
}

// Any other process of the same user could do this: all it needs is the name.
static void child(void) {
  ukshm_error error;
  // The parent may not be listening yet: wait up to five seconds for it.
  ukshm_connect_options options = {.wait_ms = 5000};
  ukshm_channel *channel = ukshm_connect("pictures", &options, &error);
  if (channel == NULL) give_up(&error);

  for (;;) {
    ukshm_message message;
    int result = ukshm_receive(channel, &message, -1, &error);   // sleeps until there is one
    if (result == UKSHM_PEER_CLOSED) break;
    if (result < 0) give_up(&error);
    if (message.length > 100) {
      printf("%zu bytes, read in place; the first is %d\n", message.length, message.bytes[0]);
    } else {
      // The sender lives and could change the bytes while we look: text is copied before use.
      char text[101];
      memcpy(text, message.bytes, message.length);
      text[message.length] = 0;
      printf("message of type %u, id %u: %s\n", message.type, message.id, text);
    }
    ukshm_release(&message);   // the sender's memory again
  }
  printf("the sender has closed the channel\n");
  ukshm_close(channel, 0, NULL);
}

int main(void) {
  // Each process opens its own ends, after the fork: a channel cannot be inherited.
  if (fork() == 0) {
    child();
    return 0;
  }
  ukshm_error error;
  ukshm_listen_options options = {.arena_bytes = 16 << 20};   // room for the largest message
  ukshm_listener *listener = ukshm_listen("pictures", &options, &error);
  if (listener == NULL) give_up(&error);
  ukshm_channel *channel = ukshm_accept(listener, 5000, &error);
  if (channel == NULL) give_up(&error);

  // A large message, written once, in place.
  ukshm_open_loan loan;
  if (ukshm_loan(channel, 8000000, &loan, -1, &error) < 0) give_up(&error);
  memset(loan.bytes, 42, loan.length);
  if (ukshm_send_loan(&loan, true, &error) < 0) give_up(&error);

  // A small one, copied in: type 1, id 7 (both are ours to choose).
  if (ukshm_send(channel, "hello", 5, 1, 7, -1, &error) < 0) give_up(&error);

  // Waits until the other side has read everything.
  if (ukshm_close(channel, 5000, &error) < 0) give_up(&error);
  ukshm_listener_close(listener);
  wait(NULL);
  return 0;
}
