/* SPDX-License-Identifier: MIT */
/* What the operating system gives: files, memory, threads, time, shared libraries.  os.c is the
 * only file that includes a system header, so another system needs another os.c and nothing else.
 *
 * A function that may fail returns 0, or a status of attend.h with one sentence in (err, nerr) that
 * names the thing; err may be NULL when nerr is 0. */
#ifndef AT_OS_H
#define AT_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- files ---- */

/* The whole of a regular file, read-only.  An empty file has data != NULL and size 0. */
struct at_os_map {
    const void *data;
    size_t size;
};
int at_os_map_file(struct at_os_map *map, const char *path, char *err, size_t nerr);
void at_os_unmap(struct at_os_map *map); /* a zeroed map is fine */

/* Write a file so that `path` holds either all of it or what it held before: a new file beside
 * it is filled, then renamed over it (a device or a pipe is written in place).  Writing after a
 * failure does nothing; finish reports the first failure and, then as always, frees f.  discard
 * removes the new file; NULL is fine. */
struct at_os_file;
int at_os_file_new(struct at_os_file **f, const char *path, char *err, size_t nerr);
void at_os_file_write(struct at_os_file *f, const void *data, size_t size);
int at_os_file_finish(struct at_os_file *f, char *err, size_t nerr);
void at_os_file_discard(struct at_os_file *f);

bool at_os_is_folder(const char *path);
int at_os_make_dir(const char *path, char *err, size_t nerr); /* one level; existing is fine */
void at_os_remove(const char *path);                          /* a file; failing is fine */
/* fn for each regular file in a folder: its name, size, and when it was written (ns). */
void at_os_list(const char *folder,
                void (*fn)(void *arg, const char *name, int64_t bytes, int64_t time), void *arg);
bool at_os_is_terminal(int fd); /* 0 stdin, 1 stdout, 2 stderr */

/* Ctrl-C sets *flag to 1 from now on, and no longer ends the program. */
void at_os_on_interrupt(volatile int *flag);

/* ---- memory ---- */

/* Memory at a multiple of `align`, a power of two, not cleared.  NULL: none left. */
void *at_os_alloc(size_t align, size_t size);
void at_os_free(void *p); /* NULL is fine */
/* Page-aligned memory, not cleared; from 2 MiB up large pages are asked for.  NULL: none left. */
void *at_os_alloc_pages(size_t size);
void at_os_free_pages(void *p); /* NULL is fine */

/* ---- time ---- */

int64_t at_os_now(void);     /* monotonic nanoseconds since an arbitrary start */
int64_t at_os_cpu_now(void); /* nanoseconds of processor time of this process, all threads */
void at_os_sleep(int64_t ns);

/* ---- threads ---- */

bool at_os_cpu_has_dot(void); /* an ARM with the dot products of bytes, that the system knows of */
int at_os_cpu_count(void);    /* the CPUs that this process may run on, at least 1 */
void at_os_cpu_name(char *name, size_t size); /* as the system calls the processor, or "" */

struct at_os_thread;
struct at_os_mutex;
struct at_os_cond;

int at_os_thread_new(struct at_os_thread **t, void (*fn)(void *), void *arg, char *err,
                     size_t nerr);
void at_os_thread_join(struct at_os_thread *t); /* waits, then frees t; NULL is fine */

struct at_os_mutex *at_os_mutex_new(void); /* NULL: no memory */
void at_os_mutex_free(struct at_os_mutex *m);
void at_os_mutex_lock(struct at_os_mutex *m);
void at_os_mutex_unlock(struct at_os_mutex *m);

struct at_os_cond *at_os_cond_new(void); /* NULL: no memory */
void at_os_cond_free(struct at_os_cond *c);
void at_os_cond_wait(struct at_os_cond *c, struct at_os_mutex *m); /* may wake without a signal */
void at_os_cond_signal(struct at_os_cond *c);
void at_os_cond_broadcast(struct at_os_cond *c);

void at_os_yield(void);
void at_os_pause(void); /* the CPU's hint inside a spin loop */

/* ---- shared libraries ---- */

struct at_os_lib;
int at_os_lib_open(struct at_os_lib **lib, const char *name, char *err, size_t nerr);
void at_os_lib_close(struct at_os_lib *lib); /* NULL is fine */
/* Forgets it, but leaves it loaded until the process ends; NULL is fine. */
void at_os_lib_keep(struct at_os_lib *lib);
/* The address of a function of lib, stored through fn, a pointer to a function pointer:
 * at_os_lib_symbol(lib, "clFinish", &cl.finish).  False when lib has no such name. */
bool at_os_lib_symbol(struct at_os_lib *lib, const char *name, void *fn);

#endif
