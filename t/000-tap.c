/* SPDX-License-Identifier: MIT */
/* The test verbs themselves, the environment table and the system layer. */
#include "tap.h"
#include "env.h"
#include "os.h"
#include "attend.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What this program prints when it is run as `000-tap.t fail`. */
static const char failures[] = "not ok 1 - ok\n"
                               "# got: 1\n# want: 2\n"
                               "not ok 2 - is_int\n"
                               "# got: a\n# want: (null)\n"
                               "not ok 3 - is_str\n"
                               "# got: nan\n# want: 0\n# bound: inf\n"
                               "not ok 4 - is_float\n"
                               "# got: 0x62\n# want: 0x63\n# at byte 1 of 2\n"
                               "not ok 5 - is_mem\n"
                               "ok 6 # SKIP nothing\n"
                               "1..6\n"
                               "# 5 of 6 failed\n";

static int fail_all(void)
{
    ok(false, "ok");
    is_int(1, 2, "is_int");
    is_str("a", NULL, "is_str");
    is_float((double)NAN, 0, (double)INFINITY, "is_float");
    is_mem("ab", "ac", 2, "is_mem");
    skip("nothing");
    return done_testing();
}

static void test_verbs(const char *self)
{
    char command[1024], text[1024];
    snprintf(command, sizeof command, "'%s' fail", self);
    FILE *p = popen(command, "r");
    if (!p)
        bail("cannot run %s", command);
    size_t size = fread(text, 1, sizeof text - 1, p);
    text[size] = 0;
    ok(pclose(p) != 0, "a program with failures exits with a failure");
    is_str(text, failures, "failed results say what they got and wanted");

    is_str(NULL, NULL, "is_str of two NULL");
    is_float((double)NAN, (double)NAN, 0, "is_float: two NaN agree");
    is_float((double)INFINITY, (double)INFINITY, 0, "is_float: equal infinities agree");
    is_float(1.0, 1.25, 0.25, "is_float: the bound itself is inside");
    is_mem("ab", "ac", 1, "is_mem looks no further than its size");
}

static void test_env(void)
{
    for (int i = 0; i < AT_ENV_COUNT; i++)
        ok(strncmp(at_env_name((enum at_env)i), "ATTEND_", 7) == 0 &&
               strlen(at_env_meaning((enum at_env)i)) > 10,
           "%s has a name and a meaning", at_env_name((enum at_env)i));
}

static void test_file(void)
{
    char err[256] = "";
    struct at_os_file *f;
    struct at_os_map map;
    const char *path = "t-000.out";

    remove(path);
    is_int(at_os_file_new(&f, path, err, sizeof err), 0, "a new file is opened");
    at_os_file_write(f, "hello", 5);
    ok(at_os_map_file(&map, path, err, sizeof err) < 0, "nothing is at its path before it is done");
    ok(strstr(err, path) != NULL, "the sentence names the missing file: %s", err);
    is_int(at_os_file_finish(f, err, sizeof err), 0, "finishing it works");
    is_int(at_os_map_file(&map, path, err, sizeof err), 0, "then it can be mapped");
    is_int((int64_t)map.size, 5, "with its size");
    is_mem(map.data, "hello", 5, "and content");
    at_os_unmap(&map);

    is_int(at_os_file_new(&f, path, err, sizeof err), 0, "it is opened again");
    at_os_file_write(f, "bye", 3);
    at_os_file_discard(f);
    is_int(at_os_map_file(&map, path, err, sizeof err), 0, "after discarding that");
    is_int((int64_t)map.size, 5, "the old content is still there");
    at_os_unmap(&map);

    is_int(at_os_file_new(&f, path, err, sizeof err), 0, "an empty file is opened");
    is_int(at_os_file_finish(f, err, sizeof err), 0, "and written");
    is_int(at_os_map_file(&map, path, err, sizeof err), 0, "an empty file can be mapped");
    ok(map.data != NULL && map.size == 0, "with data but no size");
    at_os_unmap(&map);
    remove(path);

    is_int(at_os_file_new(&f, "no-such-folder/x", err, sizeof err), ATTEND_EIO,
           "a file in a missing folder is refused");
    is_int(at_os_file_new(&f, ".", err, sizeof err), ATTEND_EIO, "and so is a folder");
    is_int(at_os_map_file(&map, ".", err, sizeof err), ATTEND_EIO, "a folder cannot be mapped");
    is_int(at_os_map_file(&map, "missing", NULL, 0), ATTEND_EIO, "the error text is optional");
    is_int(at_os_make_dir(".", err, sizeof err), 0, "making a folder that exists is fine");
    is_int(at_os_make_dir("no-such-folder/x", err, sizeof err), ATTEND_EIO,
           "making one in a missing folder is not");
    if (at_os_file_new(&f, "/dev/full", err, sizeof err) == 0) {
        at_os_file_write(f, "x", 1);
        is_int(at_os_file_finish(f, err, sizeof err), ATTEND_EIO, "a full disk is reported: %s",
               err);
    } else {
        skip("no /dev/full here");
    }
}

struct shared {
    struct at_os_mutex *mutex;
    struct at_os_cond *cond;
    int ready, sum;
    atomic_int hits;
};

static void work(void *arg)
{
    struct shared *s = arg;
    atomic_fetch_add(&s->hits, 1);
    at_os_mutex_lock(s->mutex);
    while (!s->ready)
        at_os_cond_wait(s->cond, s->mutex);
    s->sum++;
    at_os_mutex_unlock(s->mutex);
}

static void test_threads(void)
{
    char err[256];
    struct at_os_thread *threads[4];
    struct shared s = {.mutex = at_os_mutex_new(), .cond = at_os_cond_new()};
    if (!s.mutex || !s.cond)
        bail("no memory for a mutex");
    for (size_t i = 0; i < NELEM(threads); i++)
        if (at_os_thread_new(&threads[i], work, &s, err, sizeof err) < 0)
            bail("%s", err);
    while (atomic_load(&s.hits) < (int)NELEM(threads))
        at_os_yield();
    at_os_mutex_lock(s.mutex);
    s.ready = 1;
    at_os_cond_broadcast(s.cond);
    at_os_mutex_unlock(s.mutex);
    for (size_t i = 0; i < NELEM(threads); i++)
        at_os_thread_join(threads[i]);
    is_int(s.sum, NELEM(threads), "every waiting thread was woken");
    at_os_cond_free(s.cond);
    at_os_mutex_free(s.mutex);
    ok(at_os_cpu_count() >= 1, "%d processors", at_os_cpu_count());

    int64_t before = at_os_now();
    at_os_sleep(2000000);
    ok(at_os_now() - before >= 2000000, "the clock counts nanoseconds");
}

static void test_memory(void)
{
    for (size_t size = 0; size <= (size_t)8 << 20; size = size ? size * 8 : 1) {
        unsigned char *p = at_os_alloc_pages(size);
        ok(p && (uintptr_t)p % 4096 == 0, "%zu bytes start on a page", size);
        if (p && size)
            p[0] = p[size - 1] = 1;
        at_os_free_pages(p);
    }
    at_os_free_pages(NULL);
}

static void test_libraries(void)
{
    char err[256] = "";
    struct at_os_lib *lib;
    double (*cosine)(double) = NULL;
    is_int(at_os_lib_open(&lib, "libattend-no-such.so", err, sizeof err), ATTEND_EUNSUPPORTED,
           "a missing library is refused");
    ok(strstr(err, "libattend-no-such.so") != NULL, "with a sentence that names it: %s", err);
    if (at_os_lib_open(&lib, "libm.so.6", err, sizeof err) < 0) {
        skip("%s", err);
        return;
    }
    ok(at_os_lib_symbol(lib, "cos", &cosine) && cosine(0) == 1, "a function is found by name");
    ok(!at_os_lib_symbol(lib, "no_such_function", &cosine), "and a missing one is not");
    at_os_lib_close(lib);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "fail") == 0)
        return fail_all();
    test_verbs(argv[0]);
    test_env();
    test_file();
    test_threads();
    test_memory();
    test_libraries();
    return done_testing();
}
