/* As much of an OpenMP runtime as compiled nets call: a team of real threads that meet at barriers. */
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#define MOST 16
typedef void Region(int32_t *, int32_t *, void *);

static int wanted = 1;
static pthread_barrier_t barrier;
static _Thread_local int32_t own;
static struct { Region *region; void *shared; } work;

int32_t __kmpc_global_thread_num(void *place) { return (void)place, own; }
void __kmpc_push_num_threads(void *place, int32_t thread, int32_t threads) { (void)place, (void)thread, wanted = threads; }
int omp_get_thread_num(void) { return own; }
int omp_get_num_threads(void) { return wanted; }
void __kmpc_barrier(void *place, int32_t thread) { (void)place, (void)thread, pthread_barrier_wait(&barrier); }

static void *start(void *number) {
  own = (int32_t)(intptr_t)number;
  work.region(&own, &own, work.shared);
  return NULL;
}

void __kmpc_fork_call(void *place, int32_t count, Region *region, ...) {
  (void)place;
  if (count > 1 || wanted > MOST) abort();
  va_list list;
  va_start(list, region);
  work.region = region, work.shared = count ? va_arg(list, void *) : NULL;
  va_end(list);
  pthread_t team[MOST];
  pthread_barrier_init(&barrier, NULL, (unsigned)wanted);
  for (int i = 1; i < wanted; i++) pthread_create(&team[i], NULL, start, (void *)(intptr_t)i);
  start(0);
  for (int i = 1; i < wanted; i++) pthread_join(team[i], NULL);
  pthread_barrier_destroy(&barrier);
}
