/* A plugin of qemu: how many instructions a program executes, all of them and by function.
 *
 *     gcc -shared -fPIC -O2 count.c -o count.so
 *     qemu-aarch64 -plugin ./count.so -d plugin PROGRAM
 *
 * Counts repeat to the instruction as long as the program has one thread. They say nothing of time. Declarations are
 * those of version 1 of the interface: https://www.qemu.org/docs/master/devel/tcg-plugins.html */
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin;
struct block;
struct instruction;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct block *));
void qemu_plugin_register_atexit_cb(plugin, void (*)(plugin, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const char *qemu_plugin_insn_symbol(const struct instruction *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int operation, void *at, uint64_t number);
void qemu_plugin_outs(const char *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct function { char *name; uint64_t count; };
static void *functions;
static uint64_t total;

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct function *)a)->name, ((const struct function *)b)->name);
}

/* Called once for each straight run of instructions: from then on qemu adds its length whenever it runs. */
static void translated(plugin id, struct block *block) {
  (void)id;
  const char *symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
  struct function key = {symbol ? (char *)symbol : "?", 0}, **found = tfind(&key, &functions, by_name);
  if (!found) {
    struct function *new = malloc(sizeof *new);
    *new = (struct function){strdup(key.name), 0};
    found = tsearch(new, &functions, by_name);
  }
  size_t length = qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &total, length);
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0, &(*found)->count, length);
}

static void print(const void *node, VISIT visit, int depth) {
  (void)depth;
  const struct function *function = *(struct function *const *)node;
  char line[4096];
  if ((visit == postorder || visit == leaf) && function->count) {
    snprintf(line, sizeof line, "%llu %s\n", (unsigned long long)function->count, function->name);
    qemu_plugin_outs(line);
  }
}

static void over(plugin id, void *nothing) {
  (void)id, (void)nothing;
  char line[64];
  snprintf(line, sizeof line, "%llu total\n", (unsigned long long)total);
  qemu_plugin_outs(line);
  twalk(functions, print);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin id, const void *info, int count, char **words) {
  (void)info, (void)count, (void)words;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, over, 0);
  return 0;
}
