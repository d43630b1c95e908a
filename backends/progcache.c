/* SPDX-License-Identifier: MIT */
/* A file a program: a header with the key and the checksum of what follows. */
#include "progcache.h"

#include <stdio.h>
#include <string.h>

#include "env.h"
#include "os.h"

#define PATH 1024

struct header {
    char magic[8];
    uint32_t version, size; /* of this header */
    uint64_t bytes;         /* after it */
    uint8_t key[32], sum[32];
};
_Static_assert(sizeof(struct header) == 88, "the header of a cached program has no padding");
static const char magic[8] = "ATTENDPC";
enum { FORMAT = 1 };

bool at_progcache_folder(char *buf, size_t size)
{
    const char *asked = at_env(AT_ENV_CACHE);
    int n = -1;
    if (asked && strcmp(asked, "off") != 0)
        n = snprintf(buf, size, "%s", asked);
    else if (!asked)
        n = at_env_caches(buf, size);
    return n > 0 && (size_t)n < size;
}

static bool path_of(const uint8_t key[32], char buf[PATH])
{
    char name[80] = "/";
    if (!at_progcache_folder(buf, PATH - sizeof name))
        return false;
    for (int i = 0; i < 32; i++)
        snprintf(name + 1 + 2 * i, 3, "%02x", key[i]);
    strcat(buf, name);
    strcat(buf, ".bin");
    return true;
}

static void sum_of(const void *data, size_t bytes, uint8_t sum[32])
{
    struct at_sha256 s;
    at_sha256_begin(&s);
    at_sha256_add(&s, data, bytes);
    at_sha256_end(&s, sum);
}

/* Is the file what was written under this key? */
static bool sound(const struct at_os_map *map, const uint8_t key[32])
{
    struct header h;
    uint8_t sum[32];
    if (map->size < sizeof h)
        return false;
    memcpy(&h, map->data, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0 || h.version != FORMAT || h.size != sizeof h ||
        h.bytes != map->size - sizeof h || memcmp(h.key, key, sizeof h.key) != 0)
        return false;
    sum_of((const char *)map->data + sizeof h, map->size - sizeof h, sum);
    return memcmp(sum, h.sum, sizeof sum) == 0;
}

void *at_progcache_read(attend_ctx *ctx, const uint8_t key[32], int64_t *bytes)
{
    char path[PATH];
    struct at_os_map map;
    void *copy = NULL;
    *bytes = 0;
    if (!path_of(key, path) || at_os_map_file(&map, path, NULL, 0) < 0)
        return NULL;
    /* A copy, of which the checksum is: a file that is mapped may change meanwhile. */
    struct at_os_map own = {NULL, map.size};
    own.data = copy = at_alloc(ctx, (int64_t)map.size);
    if (copy)
        memcpy(copy, map.data, map.size);
    at_os_unmap(&map);
    if (!copy || !sound(&own, key)) {
        at_free(ctx, copy);
        return NULL;
    }
    *bytes = (int64_t)(own.size - sizeof(struct header));
    memmove(copy, (char *)copy + sizeof(struct header), (size_t)*bytes);
    return copy;
}

struct oldest {
    int64_t sum, time;
    char name[256];
};

static void look(void *arg, const char *name, int64_t bytes, int64_t time)
{
    struct oldest *o = arg;
    size_t n = strlen(name);
    if (n < 4 || strcmp(name + n - 4, ".bin") != 0 || n >= sizeof o->name)
        return;
    o->sum += bytes;
    if (!o->name[0] || time < o->time) {
        o->time = time;
        strcpy(o->name, name);
    }
}

/* Removes the oldest until `more` bytes have room. */
static void make_room(const char *folder, int64_t more)
{
    char path[PATH];
    for (int n = 0; n < 1000; n++) {
        struct oldest o = {0};
        at_os_list(folder, look, &o);
        if (o.sum + more <= AT_PROGCACHE_MOST || !o.name[0] ||
            snprintf(path, sizeof path, "%s/%s", folder, o.name) >= PATH)
            return;
        at_os_remove(path);
    }
}

void at_progcache_write(attend_ctx *ctx, const uint8_t key[32], const void *data, int64_t bytes)
{
    struct header h = {.version = FORMAT, .size = sizeof h, .bytes = (uint64_t)bytes};
    struct at_os_file *f;
    char folder[PATH], path[PATH], err[256] = "";
    if (bytes <= 0 || bytes > AT_PROGCACHE_MOST || !path_of(key, path) ||
        !at_progcache_folder(folder, sizeof folder))
        return;
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.key, key, sizeof h.key);
    sum_of(data, (size_t)bytes, h.sum);
    for (char *slash = folder + 1; (slash = strchr(slash, '/')); slash++) { /* its parents, too */
        *slash = 0;
        at_os_make_dir(folder, NULL, 0);
        *slash = '/';
    }
    int status = at_os_make_dir(folder, err, sizeof err);
    if (status == 0) {
        make_room(folder, bytes);
        status = at_os_file_new(&f, path, err, sizeof err);
    }
    if (status == 0) {
        at_os_file_write(f, &h, sizeof h);
        at_os_file_write(f, data, (size_t)bytes);
        status = at_os_file_finish(f, err, sizeof err);
    }
    if (status < 0)
        at_log(ctx, "a compiled program is not kept: %s", err);
}
