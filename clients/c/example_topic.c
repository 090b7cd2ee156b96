// A topic: the parent publishes, two children subscribe. Each message is written once, whoever reads.
//
//     cc -std=gnu11 -O2 -pthread example_topic.c -o example_topic && ./example_topic
#define UKSHM_IMPLEMENTATION   // in one file of a program
#include "ukshm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAME_BYTES = 1000000, FRAMES = 5 };

static void give_up(const ukshm_error *error) {
  fprintf(stderr, "%s: %s\n", error->code, error->message);
  exit(1);
}

// Any other process of the same user could do this: all it needs is the name.
static void child(void) {
  ukshm_error error;
  // If we are slow, the publisher waits for us; it allows that, see below.
  ukshm_subscribe_options options = {.slow = UKSHM_BLOCK, .depth = 8, .wait_ms = 5000};
  ukshm_subscription *frames = ukshm_subscribe("frames", &options, &error);
  if (frames == NULL) give_up(&error);
  ukshm_message frame;
  uint32_t missed, count = 0;
  int result;
  while ((result = ukshm_topic_receive(frames, &frame, &missed, -1, &error)) == 0) {
    // In place, in the publisher's memory; `frame.id` is its number.
    if (frame.length == FRAME_BYTES && frame.bytes[0] == (uint8_t)frame.id) count++;
    ukshm_release(&frame);   // the last of all releases frees it
  }
  if (result != UKSHM_PEER_CLOSED) give_up(&error);   // the publisher died, or gave us up
  printf("%u frames of %d bytes\n", count, FRAME_BYTES);
  ukshm_unsubscribe(frames);
}

int main(void) {
  // Children first: whoever forks must not take open channels along.
  for (int i = 0; i < 2; i++) {
    if (fork() == 0) {
      child();
      return 0;
    }
  }
  ukshm_error error;
  ukshm_topic_options options = {.may_block = true};
  ukshm_topic *topic = ukshm_topic_open("frames", &options, &error);
  if (topic == NULL) give_up(&error);
  ukshm_topic_stats stats;
  do {
    usleep(1000);
    ukshm_topic_numbers(topic, &stats);
  } while (stats.subscribers < 2);

  for (uint32_t number = 0; number < FRAMES; number++) {
    ukshm_publication frame;
    if (ukshm_topic_lend(topic, FRAME_BYTES, &frame, -1, &error) < 0) give_up(&error);
    for (size_t i = 0; i < frame.length; i++) frame.bytes[i] = (uint8_t)number;   // written once
    if (ukshm_topic_send(&frame, -1, &error) < 0) give_up(&error);
  }
  ukshm_topic_close(topic, 1000, &error);   // they get the rest, and a second to read it
  while (wait(NULL) > 0) continue;
  return 0;
}
