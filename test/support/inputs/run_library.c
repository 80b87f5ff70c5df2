/* Calls a net with what the test gives it, then in every wrong way; prints each status as NAME STATUS MESSAGE.
 *
 *   run_library INPUT OUTPUT [WEIGHTS]      with the net's object file linked in, and NET defined as its name
 *   run_library INPUT OUTPUT LIBRARY        with LOADED defined: LIBRARY is mapped as the system's loader does it
 *
 * INPUT and OUTPUT are files of floats.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "net.h"

#define QUOTE(text) #text
#define STRING(text) QUOTE(text)
#define JOIN(a, b) a##_##b
#define NAME(a, b) JOIN(a, b)
#define FUNCTION(name) NAME(NET, name)
#define CONSTANT(name) NAME(NET_CAPITALS, name)

static void *aligned(size_t bytes) {
  void *memory;
  if (posix_memalign(&memory, 16384, bytes)) exit(2);
  memset(memory, 0xff, bytes); /* NaN */
  return memory;
}

static size_t read_file(const char *path, void *data, size_t bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) exit(3);
  size_t found = fread(data, 1, bytes, file);
  fclose(file);
  return found;
}

#ifdef LOADED
static char *base;
static Elf64_Sym *symbols;
static const char *names;
static uint32_t symbol_count;

static void load(const char *path) {
  size_t limit = 256 << 20;
  char *file = aligned(limit);
  read_file(path, file, limit);
  Elf64_Ehdr *head = (Elf64_Ehdr *)file;
  Elf64_Phdr *parts = (Elf64_Phdr *)(file + head->e_phoff);
  Elf64_Rela *relocations = NULL;
  uint64_t relocation_bytes = 0;
  base = mmap(NULL, limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < head->e_phnum; i++)
    if (parts[i].p_type == PT_LOAD) memcpy(base + parts[i].p_vaddr, file + parts[i].p_offset, parts[i].p_filesz);
  for (int i = 0; i < head->e_phnum; i++) {
    if (parts[i].p_type != PT_DYNAMIC) continue;
    for (Elf64_Dyn *entry = (Elf64_Dyn *)(base + parts[i].p_vaddr); entry->d_tag != DT_NULL; entry++) {
      char *address = base + entry->d_un.d_ptr;
      if (entry->d_tag == DT_SYMTAB) symbols = (Elf64_Sym *)address;
      if (entry->d_tag == DT_STRTAB) names = address;
      if (entry->d_tag == DT_HASH) symbol_count = ((uint32_t *)address)[1];
      if (entry->d_tag == DT_RELA) relocations = (Elf64_Rela *)address;
      if (entry->d_tag == DT_RELASZ) relocation_bytes = entry->d_un.d_val;
      if (entry->d_tag == DT_NEEDED || entry->d_tag == DT_TEXTREL) exit(4);
    }
  }
  for (uint64_t i = 0; i < relocation_bytes / sizeof(Elf64_Rela); i++) {
    if (ELF64_R_TYPE(relocations[i].r_info) != R_AARCH64_RELATIVE) exit(5);
    *(char **)(base + relocations[i].r_offset) = base + relocations[i].r_addend;
  }
  for (int i = 0; i < head->e_phnum; i++) {
    if (parts[i].p_type != PT_LOAD || !(parts[i].p_flags & PF_X)) continue;
    uintptr_t start = (uintptr_t)(base + parts[i].p_vaddr) & ~(uintptr_t)4095;
    mprotect((void *)start, (uintptr_t)(base + parts[i].p_vaddr + parts[i].p_memsz) - start, PROT_READ | PROT_EXEC);
  }
}

static void *find(const char *name) {
  for (uint32_t i = 0; i < symbol_count; i++)
    if (symbols[i].st_value && !strcmp(names + symbols[i].st_name, name)) return base + symbols[i].st_value;
  exit(6);
}

#define run ((__typeof__(&FUNCTION(run)))find(STRING(NET) "_run"))
#define error ((__typeof__(&FUNCTION(error)))find(STRING(NET) "_error"))
#define workspace_bytes ((__typeof__(&FUNCTION(workspace_bytes)))find(STRING(NET) "_workspace_bytes"))
#else
#define run FUNCTION(run)
#define error FUNCTION(error)
#define workspace_bytes FUNCTION(workspace_bytes)
#endif

static void print(const char *name, int status) { printf("%s %d %s\n", name, status, error(status)); }

int main(int argc, char **argv) {
  (void)argc;
#ifdef LOADED
  load(argv[3]);
#endif
  float *input = aligned(4 * CONSTANT(INPUT0_ELEMENTS) + 4), *output = aligned(4 * CONSTANT(OUTPUT0_ELEMENTS) + 4);
  char *workspace = aligned(CONSTANT(WORKSPACE_BYTES) + 128);
  if (workspace_bytes() != CONSTANT(WORKSPACE_BYTES)) return 7;
  /* One float behind a cache line: tensors need no more than the alignment of a float. */
  input++, output++;
  if (read_file(argv[1], input, 4 * CONSTANT(INPUT0_ELEMENTS)) != 4 * CONSTANT(INPUT0_ELEMENTS)) return 8;
#if CONSTANT(WEIGHTS_BYTES)
  size_t bytes = CONSTANT(WEIGHTS_BYTES);
  char *weights = aligned(bytes + 128);
  if (read_file(argv[3], weights, bytes + 1) != bytes) return 9;
  print("unset", run(input, output, workspace));
  print("set-null", FUNCTION(set_weights)(NULL, bytes));
  memmove(weights + 8, weights, bytes);
  print("set-crooked", FUNCTION(set_weights)(weights + 8, bytes));
  memmove(weights, weights + 8, bytes);
  print("set-short", FUNCTION(set_weights)(weights, bytes - 64));
  print("set-empty", FUNCTION(set_weights)(weights, 0));
  weights[bytes / 2] ^= 1;
  print("set-damaged", FUNCTION(set_weights)(weights, bytes));
  weights[bytes / 2] ^= 1;
  print("still-unset", run(input, output, workspace));
  print("set", FUNCTION(set_weights)(weights, bytes));
#endif
  print("null-input", run(NULL, output, workspace));
  print("null-output", run(input, NULL, workspace));
  print("null-workspace", run(input, output, NULL));
  print("crooked-input", run((float *)((char *)input + 2), output, workspace));
  print("crooked-output", run(input, (float *)((char *)output + 1), workspace));
  print("crooked-workspace", run(input, output, workspace + 32));
  print("unknown", 77);
  /* What lies behind the workspace is left alone. */
  memset(workspace + CONSTANT(WORKSPACE_BYTES), 0x5a, 128);
  print("run", run(input, output, workspace));
  print("again", run(input, output, workspace));
  for (int i = 0; i < 128; i++)
    if (workspace[CONSTANT(WORKSPACE_BYTES) + i] != 0x5a) return 10;
  FILE *file = fopen(argv[2], "wb");
  fwrite(output, 4, CONSTANT(OUTPUT0_ELEMENTS), file);
  fclose(file);
  return 0;
}
