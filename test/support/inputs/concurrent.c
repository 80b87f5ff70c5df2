/* Calls a net from several threads at the same time, and in a forked process; 0 if all outputs are those of one call.
 *
 *   concurrent INPUT      a file of floats
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "my_net.h"

#define CALLERS 4
#define CALLS 50

static float input[MY_NET_INPUT0_ELEMENTS], wanted[MY_NET_OUTPUT0_ELEMENTS];

static void *call(void *unused) {
  (void)unused;
  float output[MY_NET_OUTPUT0_ELEMENTS];
  void *workspace;
  if (posix_memalign(&workspace, MY_NET_WORKSPACE_ALIGNMENT, MY_NET_WORKSPACE_BYTES)) exit(2);
  for (int i = 0; i < CALLS; i++) {
    memset(output, 0xff, sizeof output);
    if (my_net_run(input, output, workspace) != MY_NET_OK) exit(3);
    if (memcmp(output, wanted, sizeof output)) exit(4);
  }
  free(workspace);
  return NULL;
}

static void call_together(void) {
  pthread_t callers[CALLERS];
  for (int i = 0; i < CALLERS; i++)
    if (pthread_create(&callers[i], NULL, call, NULL)) exit(5);
  for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
}

int main(int argc, char **argv) {
  FILE *file = fopen(argv[argc - 1], "rb");
  if (!file || fread(input, sizeof input, 1, file) != 1) return 6;
  void *workspace;
  if (posix_memalign(&workspace, MY_NET_WORKSPACE_ALIGNMENT, MY_NET_WORKSPACE_BYTES)) return 2;
  if (my_net_run(input, wanted, workspace) != MY_NET_OK) return 3;
  call_together();
  pid_t child = fork();
  if (child == 0) {
    call_together();
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  call_together();
  fwrite(wanted, sizeof wanted, 1, stdout);
  return status;
}
