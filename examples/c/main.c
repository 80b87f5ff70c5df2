/* Shows a picture to a compiled net of 3 input channels and prints the five classes with the largest scores.
 *
 *   ./main picture.ppm [NET.weights]
 *
 * The picture is a binary PPM (P6); `convert cat.jpg cat.ppm` makes one. The second argument is for a library of
 * --weights file. README.md beside this file says how to build it.
 */
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The net: -DNET=vgg16 -DNET_CAPITALS=VGG16 for another one. */
#ifndef NET
#define NET resnet18
#define NET_CAPITALS RESNET18
#endif
#define QUOTE(text) #text
#define HEADER(net) QUOTE(net.h)
#define JOIN(a, b) a##_##b
#define NAME(a, b) JOIN(a, b)
#define FUNCTION(name) NAME(NET, name)           /* resnet18_run */
#define CONSTANT(name) NAME(NET_CAPITALS, name) /* RESNET18_THREADS */
#include HEADER(NET)

#define CHANNELS 3
#define BEST 5
#define REPETITIONS 10

/* Ends the program with one line on standard error. */
static void fail(const char *place, const char *message) {
  fprintf(stderr, "%s: %s\n", place, message);
  exit(1);
}

/* Returns `bytes` aligned to `alignment`, a power of two; they are never freed. */
static void *allocate(size_t bytes, size_t alignment) {
  char *memory = malloc(bytes + alignment);
  if (memory == NULL) fail("main", "out of memory");
  return memory + (alignment - (uintptr_t)memory % alignment) % alignment;
}

/* Reads a number of a PPM header; comments run from # to the end of the line. */
static int read_number(FILE *file, const char *path) {
  int c = fgetc(file);
  while (c == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n') {
    if (c == '#') while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  int number = 0;
  if (c < '0' || c > '9') fail(path, "expected a binary PPM (P6), found a damaged header");
  for (; c >= '0' && c <= '9' && number < 100000; c = fgetc(file)) number = 10 * number + c - '0';
  return number; /* the character behind it is read, too */
}

/* Returns the bytes of a picture, RGB by rows. */
static unsigned char *read_picture(const char *path, int *width, int *height) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail(path, "cannot open the picture");
  if (fgetc(file) != 'P' || fgetc(file) != '6') fail(path, "expected a binary PPM (P6), found something else");
  *width = read_number(file, path);
  *height = read_number(file, path);
  if (read_number(file, path) != 255) fail(path, "expected 8 bits per colour");
  if (*width < 1 || *height < 1 || *width > 16384 || *height > 16384) fail(path, "expected 1 to 16384 rows and columns");
  size_t bytes = (size_t)*width * (size_t)*height * CHANNELS;
  unsigned char *pixels = allocate(bytes, 1);
  if (fread(pixels, 1, bytes, file) != bytes) fail(path, "the picture ends early");
  fclose(file);
  return pixels;
}

/* Returns where place i of `size` lies among `pixels` places; what is between two pixels is interpolated. */
static float source_place(int i, int size, int pixels) {
  float place = ((float)i + 0.5f) * (float)pixels / (float)size - 0.5f;
  float last = (float)(pixels - 1);
  return place < 0 ? 0 : place > last ? last : place;
}

/* Scales a picture to the net's size, bilinearly, and normalizes it as torchvision's ImageNet networks expect. */
static void prepare(const unsigned char *pixels, int width, int height, float *input, int rows, int columns) {
  static const float mean[CHANNELS] = {0.485f, 0.456f, 0.406f}, deviation[CHANNELS] = {0.229f, 0.224f, 0.225f};
  for (int c = 0; c < CHANNELS; c++) {
    for (int y = 0; y < rows; y++) {
      float place_y = source_place(y, rows, height);
      int top = (int)place_y, bottom = top + 1 < height ? top + 1 : top;
      for (int x = 0; x < columns; x++) {
        float place_x = source_place(x, columns, width);
        int left = (int)place_x, right = left + 1 < width ? left + 1 : left;
        float down = place_y - (float)top, along = place_x - (float)left;
#define PIXEL(row, column) ((float)pixels[((size_t)(row) * (size_t)width + (size_t)(column)) * CHANNELS + (size_t)c])
        float upper = PIXEL(top, left) + along * (PIXEL(top, right) - PIXEL(top, left));
        float lower = PIXEL(bottom, left) + along * (PIXEL(bottom, right) - PIXEL(bottom, left));
        float value = (upper + down * (lower - upper)) / 255;
        *input++ = (value - mean[c]) / deviation[c];
      }
    }
  }
}

/* Hands the file of the weights to a library that was compiled with --weights file. */
static void load_weights(const char *path) {
#if CONSTANT(WEIGHTS_BYTES)
  if (path == NULL) fail("main", "expected the file of the weights as second argument");
  FILE *file = fopen(path, "rb");
  if (file == NULL) fail(path, "cannot open the weights");
  char *weights = allocate(CONSTANT(WEIGHTS_BYTES) + 1, CONSTANT(WEIGHTS_ALIGNMENT));
  size_t bytes = fread(weights, 1, CONSTANT(WEIGHTS_BYTES) + 1, file);
  fclose(file);
  int status = FUNCTION(set_weights)(weights, bytes);
  if (status != CONSTANT(OK)) fail(path, FUNCTION(error)(status));
#else
  if (path != NULL) fail(path, "the weights are part of this library");
#endif
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
  static const int shape[] = CONSTANT(INPUT0_SHAPE);
  if (argc < 2 || argc > 3) fail(argv[0], "expected a picture in PPM format and, for weights in a file, that file");
  if (CONSTANT(INPUT0_DIMENSIONS) != 4 || shape[0] != 1 || shape[1] != CHANNELS)
    fail(argv[0], "expected a net of one colour picture, 1 x 3 x H x W");
  if (FUNCTION(workspace_bytes)() != CONSTANT(WORKSPACE_BYTES)) fail(argv[0], "header and library do not fit");
  load_weights(argc == 3 ? argv[2] : NULL);

  int width, height;
  unsigned char *pixels = read_picture(argv[1], &width, &height);
  float *input = allocate(sizeof(float) * CONSTANT(INPUT0_ELEMENTS), sizeof(float));
  float *scores = allocate(sizeof(float) * CONSTANT(OUTPUT0_ELEMENTS), sizeof(float));
  void *workspace = allocate(CONSTANT(WORKSPACE_BYTES), CONSTANT(WORKSPACE_ALIGNMENT));
  prepare(pixels, width, height, input, shape[2], shape[3]);

  double best = 1e30;
  for (int i = 0; i <= REPETITIONS; i++) { /* the first one warms up */
    double start = seconds();
    int status = FUNCTION(run)(input, scores, workspace);
    double time = seconds() - start;
    if (status != CONSTANT(OK)) fail(argv[0], FUNCTION(error)(status));
    if (i > 0 && time < best) best = time;
  }

  for (int i = 0; i < BEST && i < CONSTANT(OUTPUT0_ELEMENTS); i++) {
    int winner = 0;
    for (int k = 1; k < CONSTANT(OUTPUT0_ELEMENTS); k++)
      if (scores[k] > scores[winner]) winner = k;
    printf("class %d  %.6f\n", winner, (double)scores[winner]);
    scores[winner] = -1e30f;
  }
  printf("%.3f ms, the best of %d, %d thread(s)\n", 1e3 * best, REPETITIONS, CONSTANT(THREADS));
  return 0;
}
