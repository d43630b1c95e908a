/* SPDX-License-Identifier: MIT */
/* os.h for Windows, where it takes os.c's place.  Paths are in the code page of the process, as
 * fopen's are. */
#include "os.h"
#include "attend.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <malloc.h>
#include <process.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

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

/* The last error of the system in words, those of C's library where it has them. */
static const char *reason(char text[160])
{
    DWORD error = GetLastError();
    switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
        return strerror(ENOENT);
    case ERROR_ACCESS_DENIED:
        return strerror(EACCES);
    default:
        snprintf(text, 160, "error %lu", error);
        FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, error, 0,
                       text, 160, NULL);
        text[strcspn(text, "\r\n")] = 0;
        return text;
    }
}

/* ---- files ---- */

static bool is_folder(DWORD attributes)
{
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}

bool at_os_is_folder(const char *path)
{
    return is_folder(GetFileAttributesA(path));
}

static int map_open(struct at_os_map *map, HANDLE file, const char *path, char *err, size_t nerr)
{
    char why[160];
    LARGE_INTEGER size;
    if (GetFileType(file) != FILE_TYPE_DISK)
        return fail(err, nerr, ATTEND_EIO, "\"%s\" is not a regular file", path);
    if (!GetFileSizeEx(file, &size))
        return fail(err, nerr, ATTEND_EIO, "cannot read \"%s\": %s", path, reason(why));
    map->data = "";
    map->size = (size_t)size.QuadPart;
    if (map->size == 0) /* which cannot be mapped */
        return 0;
    HANDLE mapping = CreateFileMappingA(file, NULL, PAGE_READONLY, 0, 0, NULL);
    void *p = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!p)
        fail(err, nerr, ATTEND_EIO, "cannot map the %zu bytes of \"%s\": %s", map->size, path,
             reason(why));
    if (mapping)
        CloseHandle(mapping); /* the view keeps it */
    map->data = p;
    return p ? 0 : ATTEND_EIO;
}

int at_os_map_file(struct at_os_map *map, const char *path, char *err, size_t nerr)
{
    char why[160];
    int status;
    *map = (struct at_os_map){0};
    if (at_os_is_folder(path))
        return fail(err, nerr, ATTEND_EIO, "\"%s\" is not a regular file", path);
    HANDLE file = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE)
        return fail(err, nerr, ATTEND_EIO, "cannot open \"%s\": %s", path, reason(why));
    status = map_open(map, file, path, err, nerr);
    CloseHandle(file);
    if (status < 0)
        *map = (struct at_os_map){0};
    return status;
}

void at_os_unmap(struct at_os_map *map)
{
    if (map->size > 0)
        UnmapViewOfFile(map->data);
    *map = (struct at_os_map){0};
}

struct at_os_file {
    FILE *out;
    char *path;
    char *beside; /* the new file, NULL when path itself is written */
    int error;    /* errno of the first failure */
};

static FILE *open_beside(struct at_os_file *f)
{
    size_t size = strlen(f->path) + 40;
    f->beside = malloc(size);
    if (!f->beside)
        return NULL;
    int fd = -1;
    for (int n = 0; fd < 0 && n < 1000; n++) {
        snprintf(f->beside, size, "%s.%d-%d.tmp", f->path, _getpid(), n);
        fd = _open(f->beside, _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    FILE *out = fd < 0 ? NULL : _fdopen(fd, "wb");
    if (fd >= 0 && !out) {
        _close(fd);
        DeleteFileA(f->beside);
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
    if (!f || !(f->path = _strdup(path))) {
        free(f);
        return fail(err, nerr, ATTEND_ENOMEM, "no memory to write \"%s\"", path);
    }
    DWORD is = GetFileAttributesA(path);
    bool device = is != INVALID_FILE_ATTRIBUTES && (is & FILE_ATTRIBUTE_DEVICE); /* such as NUL */
    if (is_folder(is))
        errno = EISDIR;
    else if (device)
        f->out = fopen(path, "wb");
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
    char why[160];
    int status = 0;
    if (fclose(f->out) != 0 && !f->error)
        f->error = errno;
    if (f->error)
        status =
            fail(err, nerr, ATTEND_EIO, "cannot write \"%s\": %s", f->path, strerror(f->error));
    else if (f->beside && !MoveFileExA(f->beside, f->path, MOVEFILE_REPLACE_EXISTING))
        status = fail(err, nerr, ATTEND_EIO, "cannot write \"%s\": %s", f->path, reason(why));
    if (status < 0 && f->beside)
        DeleteFileA(f->beside);
    file_free(f);
    return status;
}

void at_os_file_discard(struct at_os_file *f)
{
    if (!f)
        return;
    fclose(f->out);
    if (f->beside)
        DeleteFileA(f->beside);
    file_free(f);
}

static volatile int *interrupted; /* whom Ctrl-C tells */

static BOOL WINAPI interrupt(DWORD event)
{
    if (event == CTRL_C_EVENT)
        *interrupted = 1;
    return event == CTRL_C_EVENT;
}

void at_os_on_interrupt(volatile int *flag)
{
    interrupted = flag;
    SetConsoleCtrlHandler(interrupt, TRUE);
}

int at_os_make_dir(const char *path, char *err, size_t nerr)
{
    char why[160];
    if (CreateDirectoryA(path, NULL) || at_os_is_folder(path))
        return 0;
    return fail(err, nerr, ATTEND_EIO, "cannot make the folder \"%s\": %s", path, reason(why));
}

void at_os_remove(const char *path)
{
    DeleteFileA(path);
}

static int64_t wide(DWORD high, DWORD low)
{
    return (int64_t)((uint64_t)high << 32 | low);
}

void at_os_list(const char *folder,
                void (*fn)(void *arg, const char *name, int64_t bytes, int64_t time), void *arg)
{
    char pattern[MAX_PATH + 4];
    WIN32_FIND_DATAA d;
    snprintf(pattern, sizeof pattern, "%s\\*", folder);
    HANDLE find = FindFirstFileA(pattern, &d);
    for (BOOL more = find != INVALID_HANDLE_VALUE; more; more = FindNextFileA(find, &d))
        if (!is_folder(d.dwFileAttributes))
            fn(arg, d.cFileName, wide(d.nFileSizeHigh, d.nFileSizeLow),
               wide(d.ftLastWriteTime.dwHighDateTime, d.ftLastWriteTime.dwLowDateTime) * 100);
    if (find != INVALID_HANDLE_VALUE)
        FindClose(find);
}

bool at_os_is_terminal(int fd)
{
    return _isatty(fd);
}

/* ---- memory ---- */

void *at_os_alloc(size_t align, size_t size)
{
    return _aligned_malloc(size ? size : 1, align);
}

void at_os_free(void *p)
{
    _aligned_free(p);
}

void *at_os_alloc_pages(size_t size)
{
    return at_os_alloc(4096, size);
}

void at_os_free_pages(void *p)
{
    at_os_free(p);
}

/* ---- time ---- */

int64_t at_os_now(void)
{
    LARGE_INTEGER t, hz;
    QueryPerformanceCounter(&t);
    QueryPerformanceFrequency(&hz);
    return t.QuadPart / hz.QuadPart * 1000000000 +
           t.QuadPart % hz.QuadPart * 1000000000 / hz.QuadPart;
}

int64_t at_os_cpu_now(void)
{
    FILETIME made, gone, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &made, &gone, &kernel, &user);
    return (wide(kernel.dwHighDateTime, kernel.dwLowDateTime) +
            wide(user.dwHighDateTime, user.dwLowDateTime)) *
           100;
}

void at_os_sleep(int64_t ns)
{
    Sleep((DWORD)((ns + 999999) / 1000000));
}

/* ---- threads ---- */

bool at_os_cpu_has_dot(void)
{
#if defined(__aarch64__)
    return IsProcessorFeaturePresent(43); /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
#else
    return false;
#endif
}

int at_os_cpu_count(void)
{
    DWORD_PTR ours, all;
    int n = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &ours, &all))
        for (; ours; ours &= ours - 1)
            n++;
    return n > 1 ? n : 1;
}

void at_os_cpu_name(char *name, size_t size)
{
    DWORD bytes = (DWORD)size;
    if (RegGetValueA(HKEY_LOCAL_MACHINE, "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0",
                     "ProcessorNameString", RRF_RT_REG_SZ, NULL, name, &bytes) != ERROR_SUCCESS)
        snprintf(name, size, "%s", "");
}

struct at_os_thread {
    HANDLE handle;
    void (*fn)(void *);
    void *arg;
};

static unsigned __stdcall thread_main(void *arg)
{
    struct at_os_thread *t = arg;
    t->fn(t->arg);
    return 0;
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
    uintptr_t handle = _beginthreadex(NULL, 0, thread_main, t, 0, NULL);
    if (!handle) {
        free(t);
        return fail(err, nerr, ATTEND_ENOMEM, "cannot start a thread: %s", strerror(errno));
    }
    memcpy(&t->handle, &handle, sizeof handle);
    *out = t;
    return 0;
}

void at_os_thread_join(struct at_os_thread *t)
{
    if (!t)
        return;
    WaitForSingleObject(t->handle, INFINITE);
    CloseHandle(t->handle);
    free(t);
}

struct at_os_mutex {
    SRWLOCK lock;
};

struct at_os_mutex *at_os_mutex_new(void)
{
    return calloc(1, sizeof(struct at_os_mutex)); /* zeros are an open lock */
}

void at_os_mutex_free(struct at_os_mutex *m)
{
    free(m);
}

void at_os_mutex_lock(struct at_os_mutex *m)
{
    AcquireSRWLockExclusive(&m->lock);
}

void at_os_mutex_unlock(struct at_os_mutex *m)
{
    ReleaseSRWLockExclusive(&m->lock);
}

struct at_os_cond {
    CONDITION_VARIABLE c;
};

struct at_os_cond *at_os_cond_new(void)
{
    return calloc(1, sizeof(struct at_os_cond)); /* zeros, as above */
}

void at_os_cond_free(struct at_os_cond *c)
{
    free(c);
}

void at_os_cond_wait(struct at_os_cond *c, struct at_os_mutex *m)
{
    SleepConditionVariableSRW(&c->c, &m->lock, INFINITE, 0);
}

void at_os_cond_signal(struct at_os_cond *c)
{
    WakeConditionVariable(&c->c);
}

void at_os_cond_broadcast(struct at_os_cond *c)
{
    WakeAllConditionVariable(&c->c);
}

void at_os_yield(void)
{
    SwitchToThread();
}

void at_os_pause(void)
{
    YieldProcessor();
}

/* ---- shared libraries ---- */

struct at_os_lib {
    HMODULE handle;
};

int at_os_lib_open(struct at_os_lib **out, const char *name, char *err, size_t nerr)
{
    char why[160];
    *out = NULL;
    HMODULE handle = LoadLibraryA(name);
    if (!handle)
        return fail(err, nerr, ATTEND_EUNSUPPORTED, "cannot open the library: %s: %s", name,
                    reason(why));
    struct at_os_lib *lib = malloc(sizeof *lib);
    if (!lib) {
        FreeLibrary(handle);
        return fail(err, nerr, ATTEND_ENOMEM, "no memory to open the library %s", name);
    }
    lib->handle = handle;
    *out = lib;
    return 0;
}

void at_os_lib_close(struct at_os_lib *lib)
{
    if (lib)
        FreeLibrary(lib->handle);
    free(lib);
}

void at_os_lib_keep(struct at_os_lib *lib)
{
    free(lib);
}

bool at_os_lib_symbol(struct at_os_lib *lib, const char *name, void *fn)
{
    FARPROC address = GetProcAddress(lib->handle, name);
    memcpy(fn, &address, sizeof address); /* C has no cast between function pointers of any kind */
    return address != NULL;
}
