/* SPDX-License-Identifier: MIT */
/* os.h for POSIX systems.  Nothing else in the tree includes a system header. */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE /* CPU_COUNT, MADV_HUGEPAGE */
#endif
#include "os.h"
#include "attend.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#    include <sys/auxv.h>
#endif
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

__attribute__((format(printf, 4, 5))) static int fail(char *err, size_t nerr, int status,
                                                      const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (nerr > 0)
        vsnprintf(err, nerr, fmt, ap);
    va_end(ap);
    return status;
}

/* ---- files ---- */

static int map_open(struct at_os_map *map, int fd, const char *path, char *err, size_t nerr)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fail(err, nerr, ATTEND_EIO, "cannot read \"%s\": %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fail(err, nerr, ATTEND_EIO, "\"%s\" is not a regular file", path);
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return fail(err, nerr, ATTEND_ELIMIT,
                    "\"%s\" has %jd bytes, more than this machine can address", path,
                    (intmax_t)st.st_size);
    map->data = "";
    map->size = (size_t)st.st_size;
    if (map->size == 0) /* mmap refuses a length of 0 */
        return 0;
    void *p = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return fail(err, nerr, ATTEND_EIO, "cannot map the %zu bytes of \"%s\": %s", map->size,
                    path, strerror(errno));
    map->data = p;
    return 0;
}

int at_os_map_file(struct at_os_map *map, const char *path, char *err, size_t nerr)
{
    /* NONBLOCK: opening a pipe that has no writer must not wait. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int status = fd < 0
                     ? fail(err, nerr, ATTEND_EIO, "cannot open \"%s\": %s", path, strerror(errno))
                     : map_open(map, fd, path, err, nerr);
    if (fd >= 0)
        close(fd);
    if (status < 0)
        *map = (struct at_os_map){0};
    return status;
}

void at_os_unmap(struct at_os_map *map)
{
    if (map->size > 0)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (struct at_os_map){0};
}

struct at_os_file {
    FILE *out;
    char *path;
    char *beside; /* the new file, NULL when path itself is written */
    int error;    /* errno of the first failure */
};

/* Opens a new file next to f->path, with the permissions that the caller's umask gives. */
static FILE *open_beside(struct at_os_file *f)
{
    size_t size = strlen(f->path) + 40;
    f->beside = malloc(size);
    if (!f->beside)
        return NULL;
    int fd = -1;
    for (int n = 0; fd < 0 && n < 1000; n++) {
        snprintf(f->beside, size, "%s.%ld-%d.tmp", f->path, (long)getpid(), n);
        fd = open(f->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    FILE *out = fd < 0 ? NULL : fdopen(fd, "wb");
    if (fd >= 0 && !out) {
        unlink(f->beside);
        close(fd);
    }
    return out;
}

static void file_free(struct at_os_file *f)
{
    free(f->path);
    free(f->beside);
    free(f);
}

int at_os_file_new(struct at_os_file **out, const char *path, char *err, size_t nerr)
{
    *out = NULL;
    struct at_os_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return fail(err, nerr, ATTEND_ENOMEM, "no memory to write \"%s\"", path);
    }
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        errno = EISDIR;
    else if (exists && !S_ISREG(st.st_mode)) /* renaming over /dev/null would remove the device */
        f->out = fopen(path, "wbe");
    else
        f->out = open_beside(f);
    if (!f->out) {
        int error = errno;
        file_free(f);
        return fail(err, nerr, ATTEND_EIO, "cannot write \"%s\": %s", path, strerror(error));
    }
    *out = f;
    return 0;
}

void at_os_file_write(struct at_os_file *f, const void *data, size_t size)
{
    if (!f->error && fwrite(data, 1, size, f->out) != size)
        f->error = errno ? errno : EIO;
}

int at_os_file_finish(struct at_os_file *f, char *err, size_t nerr)
{
    if (fclose(f->out) != 0 && !f->error)
        f->error = errno;
    if (f->beside) {
        if (!f->error && rename(f->beside, f->path) < 0)
            f->error = errno;
        if (f->error)
            unlink(f->beside);
    }
    int status = 0;
    if (f->error)
        status =
            fail(err, nerr, ATTEND_EIO, "cannot write \"%s\": %s", f->path, strerror(f->error));
    file_free(f);
    return status;
}

void at_os_file_discard(struct at_os_file *f)
{
    if (!f)
        return;
    fclose(f->out);
    if (f->beside)
        unlink(f->beside);
    file_free(f);
}

static volatile int *interrupted; /* whom Ctrl-C tells */

static void interrupt(int signal)
{
    (void)signal;
    *interrupted = 1;
}

/* No SA_RESTART: a line that is being read ends too. */
void at_os_on_interrupt(volatile int *flag)
{
    struct sigaction action = {.sa_handler = interrupt};
    interrupted = flag;
    sigaction(SIGINT, &action, NULL);
}

bool at_os_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int at_os_make_dir(const char *path, char *err, size_t nerr)
{
    struct stat st;
    if (mkdir(path, 0777) == 0)
        return 0;
    int error = errno;
    if (error == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return fail(err, nerr, ATTEND_EIO, "cannot make the folder \"%s\": %s", path, strerror(error));
}

void at_os_remove(const char *path)
{
    unlink(path);
}

void at_os_list(const char *folder,
                void (*fn)(void *arg, const char *name, int64_t bytes, int64_t time), void *arg)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    struct stat st;
    while (dir && (entry = readdir(dir)))
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            fn(arg, entry->d_name, st.st_size,
               (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
    if (dir)
        closedir(dir);
}

bool at_os_is_terminal(int fd)
{
    return isatty(fd);
}

/* ---- memory ---- */

void *at_os_alloc(size_t align, size_t size)
{
    return aligned_alloc(align, (size + align - 1) / align * align);
}

void at_os_free(void *p)
{
    free(p);
}

/* From malloc rather than mmap, so that sanitizers and valgrind see its ends. */
void *at_os_alloc_pages(size_t size)
{
    const size_t huge = (size_t)2 << 20;
    bool large = size >= huge;
    void *p;
    if (large) /* only whole ones can be large */
        size = (size + huge - 1) / huge * huge;
    if (posix_memalign(&p, large ? huge : 4096, size ? size : 1) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (large)
        madvise(p, size, MADV_HUGEPAGE); /* advice: a refusal changes nothing */
#endif
    return p;
}

void at_os_free_pages(void *p)
{
    free(p);
}

/* ---- time ---- */

static int64_t read_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t at_os_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t at_os_cpu_now(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void at_os_sleep(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        continue;
}

/* ---- threads ---- */

bool at_os_cpu_has_dot(void)
{
#if defined(__aarch64__) && defined(__linux__)
    return (getauxval(AT_HWCAP) & 1ul << 20) != 0; /* ASIMDDP */
#else
    return false;
#endif
}

int at_os_cpu_count(void)
{
#ifdef CPU_COUNT
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 1 ? (int)n : 1;
}

void at_os_cpu_name(char *name, size_t size)
{
    char line[160], found[128];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "%s", "");
    while (f && !*name && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %127[^\n]", found) == 1)
            snprintf(name, size, "%s", found);
    if (f)
        fclose(f);
}

struct at_os_thread {
    pthread_t id;
    void (*fn)(void *);
    void *arg;
};

static void *thread_main(void *arg)
{
    struct at_os_thread *t = arg;
    t->fn(t->arg);
    return NULL;
}

int at_os_thread_new(struct at_os_thread **out, void (*fn)(void *), void *arg, char *err,
                     size_t nerr)
{
    *out = NULL;
    struct at_os_thread *t = malloc(sizeof *t);
    if (!t)
        return fail(err, nerr, ATTEND_ENOMEM, "no memory for a thread");
    t->fn = fn;
    t->arg = arg;
    int error = pthread_create(&t->id, NULL, thread_main, t);
    if (error) {
        free(t);
        return fail(err, nerr, ATTEND_ENOMEM, "cannot start a thread: %s", strerror(error));
    }
    *out = t;
    return 0;
}

void at_os_thread_join(struct at_os_thread *t)
{
    if (!t)
        return;
    pthread_join(t->id, NULL);
    free(t);
}

struct at_os_mutex {
    pthread_mutex_t m;
};

struct at_os_mutex *at_os_mutex_new(void)
{
    struct at_os_mutex *m = malloc(sizeof *m);
    if (m && pthread_mutex_init(&m->m, NULL) != 0) {
        free(m);
        m = NULL;
    }
    return m;
}

void at_os_mutex_free(struct at_os_mutex *m)
{
    if (m)
        pthread_mutex_destroy(&m->m);
    free(m);
}

void at_os_mutex_lock(struct at_os_mutex *m)
{
    pthread_mutex_lock(&m->m);
}

void at_os_mutex_unlock(struct at_os_mutex *m)
{
    pthread_mutex_unlock(&m->m);
}

struct at_os_cond {
    pthread_cond_t c;
};

struct at_os_cond *at_os_cond_new(void)
{
    struct at_os_cond *c = malloc(sizeof *c);
    if (c && pthread_cond_init(&c->c, NULL) != 0) {
        free(c);
        c = NULL;
    }
    return c;
}

void at_os_cond_free(struct at_os_cond *c)
{
    if (c)
        pthread_cond_destroy(&c->c);
    free(c);
}

void at_os_cond_wait(struct at_os_cond *c, struct at_os_mutex *m)
{
    pthread_cond_wait(&c->c, &m->m);
}

void at_os_cond_signal(struct at_os_cond *c)
{
    pthread_cond_signal(&c->c);
}

void at_os_cond_broadcast(struct at_os_cond *c)
{
    pthread_cond_broadcast(&c->c);
}

void at_os_yield(void)
{
    sched_yield();
}

void at_os_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- shared libraries ---- */

struct at_os_lib {
    void *handle;
};

int at_os_lib_open(struct at_os_lib **out, const char *name, char *err, size_t nerr)
{
    *out = NULL;
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) /* dlerror names the library itself */
        return fail(err, nerr, ATTEND_EUNSUPPORTED, "cannot open the library: %s", dlerror());
    struct at_os_lib *lib = malloc(sizeof *lib);
    if (!lib) {
        dlclose(handle);
        return fail(err, nerr, ATTEND_ENOMEM, "no memory to open the library %s", name);
    }
    lib->handle = handle;
    *out = lib;
    return 0;
}

void at_os_lib_close(struct at_os_lib *lib)
{
    if (lib)
        dlclose(lib->handle);
    free(lib);
}

void at_os_lib_keep(struct at_os_lib *lib)
{
    free(lib);
}

bool at_os_lib_symbol(struct at_os_lib *lib, const char *name, void *fn)
{
    void *address = dlsym(lib->handle, name);
    memcpy(fn, &address, sizeof address); /* C has no cast from void * to a function pointer */
    return address != NULL;
}
