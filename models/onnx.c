/* SPDX-License-Identifier: MIT */
/* ONNX models: the file and its constants, read as hostile input and checked when it is opened.
 * What becomes of its nodes is onnx_build.c. */
#include "onnx.h"
#include "os.h"
#include "say.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REFUSE(say, status, ...) at_say((say)->err, (say)->errlen, status, __VA_ARGS__)

/* ---- memory ---- */

/* Memory of a model, freed with it. */
struct onnx_block {
    struct onnx_block *next;
    int64_t pad; /* keeps what follows at multiples of 16 */
};

/* A file of constants outside of the model. */
struct onnx_external {
    struct onnx_external *next;
    char *path;
    struct at_os_map map;
};

static void *take(void *budget, size_t size)
{
    struct onnx_budget *b = budget;
    if (size > b->left)
        return NULL;
    b->left -= size;
    return malloc(size);
}

static void give_back(void *budget, void *p)
{
    (void)budget;
    free(p);
}

static void set_budgets(attend_onnx *m, uint64_t file)
{
    enum { SLACK = 1 << 26, GROWTH = 16 };
    m->budget.left = SLACK + file * GROWTH;
    m->kept.left = 16 * (uint64_t)SLACK + file * GROWTH;
    m->allocator = (ProtobufCAllocator){take, give_back, &m->budget};
}

void *at_onnx_keep(attend_onnx *m, int64_t count, int64_t size)
{
    int64_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes < 0 ||
        (uint64_t)bytes + sizeof(struct onnx_block) + 1 > m->kept.left)
        return NULL;
    m->kept.left -= (uint64_t)bytes + sizeof(struct onnx_block) + 1;
    struct onnx_block *b = calloc(1, sizeof *b + (size_t)bytes + 1);
    if (!b)
        return NULL;
    b->next = m->memory;
    m->memory = b;
    return b + 1;
}

void attend_onnx_free(attend_onnx *m)
{
    if (!m)
        return;
    if (m->proto)
        at_onnx__model__free_unpacked(m->proto, &m->allocator);
    for (struct onnx_block *b = m->memory, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    for (struct onnx_external *e = m->external, *next; e; e = next) {
        next = e->next;
        at_os_unmap(&e->map);
        free(e->path);
        free(e);
    }
    free(m);
}

/* ---- element types ---- */

static const struct element {
    int32_t id;
    int type; /* -1: not here */
    const char *name;
} elements[] = {
    {1,  ATTEND_F32,  "float"   },
    {2,  ATTEND_U8,   "uint8"   },
    {3,  ATTEND_I8,   "int8"    },
    {4,  -1,          "uint16"  },
    {5,  -1,          "int16"   },
    {6,  ATTEND_I32,  "int32"   },
    {7,  ATTEND_I64,  "int64"   },
    {8,  -1,          "string"  },
    {9,  ATTEND_BOOL, "bool"    },
    {10, ATTEND_F16,  "float16" },
    {11, ATTEND_F64,  "double"  },
    {12, -1,          "uint32"  },
    {13, -1,          "uint64"  },
    {16, ATTEND_BF16, "bfloat16"},
};

/* The type with this number of ONNX's, or a status. */
static int element_type(int32_t id, const char *what, const char *name, const struct onnx_say *say)
{
    const char *other = "unknown";
    for (size_t k = 0; k < sizeof elements / sizeof *elements; k++)
        if (elements[k].id == id) {
            if (elements[k].type >= 0)
                return elements[k].type;
            other = elements[k].name;
        }
    return REFUSE(say, ATTEND_EUNSUPPORTED,
                  "%s '%.80s' has elements of type %d (%s), which is not here", what, name, id,
                  other);
}

/* ---- tensors ---- */

int64_t at_onnx_count(const attend_shape *s)
{
    int64_t n = 1;
    bool empty = false;
    for (int d = 0; d < s->rank; d++)
        empty |= s->dim[d] == 0;
    for (int d = 0; d < s->rank && !empty; d++)
        if (__builtin_mul_overflow(n, s->dim[d], &n))
            return -1;
    return empty ? 0 : n;
}

static int tensor_shape(const AtOnnx__Tensor *t, attend_shape *shape, const struct onnx_say *say)
{
    const char *name = at_onnx_text(t->name);
    if (t->n_dims > ATTEND_MAX_RANK)
        return REFUSE(say, ATTEND_ELIMIT, "tensor '%.80s' has %zu axes; at most %d are supported",
                      name, t->n_dims, ATTEND_MAX_RANK);
    shape->rank = (int)t->n_dims;
    for (size_t d = 0; d < t->n_dims; d++) {
        shape->dim[d] = t->dims[d];
        if (t->dims[d] < 0)
            return REFUSE(say, ATTEND_EFORMAT, "tensor '%.80s' has an axis of extent %lld", name,
                          (long long)t->dims[d]);
    }
    int64_t count = at_onnx_count(shape);
    return count < 0 || count > INT64_MAX / 16
               ? REFUSE(say, ATTEND_EFORMAT, "tensor '%.80s' has more elements than any file", name)
               : 0;
}

/* Elements that the file holds one by one, in a field that depends on their type. */
static int64_t listed(const AtOnnx__Tensor *t, attend_type type)
{
    return (int64_t)(type == ATTEND_F32   ? t->n_float_data
                     : type == ATTEND_F64 ? t->n_double_data
                     : type == ATTEND_I64 ? t->n_int64_data
                                          : t->n_int32_data);
}

static void copy_listed(const AtOnnx__Tensor *t, attend_type type, int64_t count, void *to)
{
    size_t size = attend_type_size(type);
    const void *from = type == ATTEND_F32   ? (const void *)t->float_data
                       : type == ATTEND_F64 ? (const void *)t->double_data
                       : type == ATTEND_I64 ? (const void *)t->int64_data
                                            : (const void *)t->int32_data;
    if (type == ATTEND_F32 || type == ATTEND_F64 || type == ATTEND_I64 || type == ATTEND_I32) {
        if (count > 0)
            memcpy(to, from, (size_t)count * size);
        return;
    }
    for (int64_t k = 0; k < count; k++) { /* the low bytes of an int32, little endian */
        uint32_t bits = (uint32_t)t->int32_data[k];
        memcpy((char *)to + (size_t)k * size, &bits, size);
    }
}

static const char *entry(const AtOnnx__Tensor *t, const char *key)
{
    for (size_t k = 0; k < t->n_external_data; k++)
        if (strcmp(at_onnx_text(t->external_data[k]->key), key) == 0)
            return at_onnx_text(t->external_data[k]->value);
    return NULL;
}

/* A plain relative path: nothing above the folder of the model is opened. */
static bool inside(const char *path)
{
    if (!*path || *path == '/' || strchr(path, '\\') || strchr(path, ':'))
        return false;
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || !part[2]))
            return false;
    }
    return true;
}

static int map_external(attend_onnx *m, const char *location, struct at_os_map *out,
                        const struct onnx_say *say)
{
    size_t length = strlen(m->folder) + strlen(location) + 1;
    struct onnx_external *e = calloc(1, sizeof *e);
    char *path = malloc(length);
    if (!e || !path) {
        free(e);
        free(path);
        return REFUSE(say, ATTEND_ENOMEM, "no memory to open a file of constants");
    }
    snprintf(path, length, "%s%s", m->folder, location);
    for (struct onnx_external *old = m->external; old; old = old->next)
        if (strcmp(old->path, path) == 0) {
            free(path);
            free(e);
            *out = old->map;
            return 0;
        }
    e->path = path;
    int status = at_os_map_file(&e->map, path, say->err, say->errlen);
    if (status < 0) {
        free(path);
        free(e);
        return status;
    }
    e->next = m->external;
    m->external = e;
    *out = e->map;
    return 0;
}

/* The bytes of a tensor that lie in another file. */
static int external_bytes(attend_onnx *m, const AtOnnx__Tensor *t, uint64_t bytes,
                          const unsigned char **out, const struct onnx_say *say)
{
    const char *location = entry(t, "location"), *at = entry(t, "offset");
    struct at_os_map map = {0};
    uint64_t offset = at ? strtoull(at, NULL, 10) : 0;
    if (!m->folder)
        return REFUSE(say, ATTEND_EUNSUPPORTED, "tensor '%.80s' lies in another file",
                      at_onnx_text(t->name));
    if (!location || !inside(location))
        return REFUSE(say, ATTEND_EFORMAT,
                      "tensor '%.80s' lies in a file '%.80s' outside of the model's folder",
                      at_onnx_text(t->name), location ? location : "");
    int status = map_external(m, location, &map, say);
    if (status < 0)
        return status;
    if (offset > map.size || bytes > map.size - offset)
        return REFUSE(say, ATTEND_EFORMAT,
                      "tensor '%.80s' wants %llu bytes at %llu of '%.80s', which has %llu",
                      at_onnx_text(t->name), (unsigned long long)bytes, (unsigned long long)offset,
                      location, (unsigned long long)map.size);
    *out = (const unsigned char *)map.data + offset;
    return 0;
}

/* Sets *data to the elements of t: in place where they lie aligned, else copied. */
static int tensor_data(attend_onnx *m, const AtOnnx__Tensor *t, struct onnx_value *v,
                       const struct onnx_say *say)
{
    int64_t count = at_onnx_count(&v->shape), size = (int64_t)attend_type_size(v->type);
    const unsigned char *raw = NULL;
    if (t->data_location == 1) {
        int status = external_bytes(m, t, (uint64_t)(count * size), &raw, say);
        if (status < 0)
            return status;
    } else if (t->has_raw_data) {
        if (t->raw_data.len != (size_t)(count * size))
            return REFUSE(say, ATTEND_EFORMAT, "tensor '%.80s' has %zu bytes, wants %lld",
                          at_onnx_text(t->name), t->raw_data.len, (long long)(count * size));
        raw = t->raw_data.data;
    } else if (listed(t, v->type) != count) {
        return REFUSE(say, ATTEND_EFORMAT, "tensor '%.80s' has %lld elements, wants %lld",
                      at_onnx_text(t->name), (long long)listed(t, v->type), (long long)count);
    }
    if (raw && (uintptr_t)raw % (uintptr_t)size == 0) {
        v->data = raw;
        return 0;
    }
    void *copy = at_onnx_keep(m, count, size);
    if (!copy)
        return REFUSE(say, ATTEND_ENOMEM, "no memory for tensor '%.80s'", at_onnx_text(t->name));
    if (raw)
        memcpy(copy, raw, (size_t)(count * size));
    else
        copy_listed(t, v->type, count, copy);
    v->data = copy;
    return 0;
}

int at_onnx_read_tensor(attend_onnx *m, const AtOnnx__Tensor *t, struct onnx_value *v,
                        const struct onnx_say *say)
{
    int status = tensor_shape(t, &v->shape, say);
    if (status == 0)
        status = element_type(t->data_type, "tensor", at_onnx_text(t->name), say);
    if (status < 0)
        return status;
    v->name = at_onnx_text(t->name);
    v->type = (attend_type)status;
    return tensor_data(m, t, v, say);
}

/* ---- opening ---- */

static int read_info(const AtOnnx__ValueInfo *info, attend_onnx_info *out,
                     const struct onnx_say *say)
{
    const AtOnnx__TensorType *t = info->type ? info->type->tensor_type : NULL;
    out->name = at_onnx_text(info->name);
    out->shape.rank = -1;
    if (!*out->name)
        return REFUSE(say, ATTEND_EFORMAT, "an input or output has no name");
    if (!t)
        return REFUSE(say, ATTEND_EUNSUPPORTED, "'%.80s' is not a tensor", out->name);
    int type = element_type(t->elem_type, "value", out->name, say);
    if (type < 0)
        return type;
    out->type = (attend_type)type;
    if (!t->shape)
        return 0;
    if (t->shape->n_dim > ATTEND_MAX_RANK)
        return REFUSE(say, ATTEND_ELIMIT, "'%.80s' has %zu axes; at most %d are supported",
                      out->name, t->shape->n_dim, ATTEND_MAX_RANK);
    out->shape.rank = (int)t->shape->n_dim;
    for (int d = 0; d < out->shape.rank; d++) {
        const AtOnnx__Dimension *dim = t->shape->dim[d];
        out->shape.dim[d] = dim->has_dim_value && dim->dim_value >= 0 ? dim->dim_value : -1;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct onnx_value *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static bool is_constant(const attend_onnx *m, const char *name)
{
    struct onnx_value key = {.name = name};
    return bsearch(&key, m->constant, (size_t)m->nconstant, sizeof key, by_name) != NULL;
}

static int read_infos(attend_onnx *m, const struct onnx_say *say)
{
    const AtOnnx__Graph *g = m->proto->graph;
    m->input = at_onnx_keep(m, (int64_t)g->n_input, sizeof *m->input);
    m->output = at_onnx_keep(m, (int64_t)g->n_output, sizeof *m->output);
    if (!m->input || !m->output)
        return REFUSE(say, ATTEND_ENOMEM, "no memory for a model");
    for (size_t k = 0; k < g->n_input; k++) {
        if (is_constant(m,
                        at_onnx_text(g->input[k]->name))) /* a default that nobody needs to give */
            continue;
        int status = read_info(g->input[k], &m->input[m->ninput++], say);
        if (status < 0)
            return status;
    }
    for (size_t k = 0; k < g->n_output; k++) {
        int status = read_info(g->output[k], &m->output[m->noutput++], say);
        if (status < 0)
            return status;
    }
    return m->noutput ? 0 : REFUSE(say, ATTEND_EFORMAT, "the model has no output");
}

static int read_constants(attend_onnx *m, const struct onnx_say *say)
{
    const AtOnnx__Graph *g = m->proto->graph;
    m->constant = at_onnx_keep(m, (int64_t)g->n_initializer, sizeof *m->constant);
    if (!m->constant)
        return REFUSE(say, ATTEND_ENOMEM, "no memory for a model");
    for (size_t k = 0; k < g->n_initializer; k++, m->nconstant++) {
        m->constant[k].t = attend_none();
        int status = at_onnx_read_tensor(m, g->initializer[k], &m->constant[k], say);
        if (status < 0)
            return status;
    }
    qsort(m->constant, (size_t)m->nconstant, sizeof *m->constant, by_name);
    return 0;
}

bool at_onnx_own_domain(const char *domain)
{
    return !*domain || strcmp(domain, "ai.onnx") == 0;
}

static int read_model(attend_onnx *m, const void *data, size_t bytes, const struct onnx_say *say)
{
    set_budgets(m, bytes);
    m->proto = at_onnx__model__unpack(&m->allocator, bytes, data);
    if (!m->proto)
        return REFUSE(say, ATTEND_EFORMAT, "it is no ONNX model, or is damaged or cut short");
    if (!m->proto->graph)
        return REFUSE(say, ATTEND_EFORMAT, "it is no ONNX model: it has no graph");
    for (size_t k = 0; k < m->proto->n_opset_import; k++) {
        const AtOnnx__OperatorSet *set = m->proto->opset_import[k];
        if (at_onnx_own_domain(at_onnx_text(set->domain)))
            m->opset = set->version;
        else if (strcmp(at_onnx_text(set->domain), "com.microsoft") == 0)
            m->microsoft = set->version;
    }
    if (m->opset < 1 && m->microsoft < 1)
        return REFUSE(say, ATTEND_EFORMAT, "the model imports no operator set of ONNX");
    int status = read_constants(m, say);
    return status < 0 ? status : read_infos(m, say);
}

static int open_model(const void *data, size_t bytes, const char *folder, attend_onnx **out,
                      const struct onnx_say *say)
{
    attend_onnx *m = calloc(1, sizeof *m);
    if (!m)
        return REFUSE(say, ATTEND_ENOMEM, "no memory for a model");
    m->folder = folder;
    int status = read_model(m, data, bytes, say);
    m->folder = NULL; /* the caller's, for as long as constants are read */
    if (status < 0)
        attend_onnx_free(m);
    else
        *out = m;
    return status;
}

int attend_onnx_from_memory(const void *data, size_t bytes, attend_onnx **out, char *err,
                            size_t errlen)
{
    *out = NULL;
    return open_model(data, bytes, NULL, out, &(struct onnx_say){err, errlen});
}

int attend_onnx_open(const char *path, attend_onnx **out, char *err, size_t errlen)
{
    struct at_os_map map;
    char why[400] = "";
    struct onnx_say say = {why, sizeof why};
    *out = NULL;
    int status = at_os_map_file(&map, path, err, errlen);
    if (status < 0)
        return status;
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash + 1 - path) : 0;
    char *folder = calloc(1, length + 1);
    if (folder)
        memcpy(folder, path, length);
    status = folder ? open_model(map.data, map.size, folder, out, &say)
                    : REFUSE(&say, ATTEND_ENOMEM, "no memory");
    free(folder);
    at_os_unmap(&map);
    return status < 0 ? at_say(err, errlen, status, "\"%s\": %s", path, why) : 0;
}

int attend_onnx_input(const attend_onnx *m, int i, attend_onnx_info *out)
{
    if (i < 0 || i >= m->ninput)
        return ATTEND_EINVAL;
    *out = m->input[i];
    return 0;
}

int attend_onnx_output(const attend_onnx *m, int i, attend_onnx_info *out)
{
    if (i < 0 || i >= m->noutput)
        return ATTEND_EINVAL;
    *out = m->output[i];
    return 0;
}

static int tensor_file(attend_onnx *m, const struct at_os_map *map, attend_array *out,
                       const struct onnx_say *say)
{
    struct onnx_value v = {0};
    set_budgets(m, map->size);
    AtOnnx__Tensor *t = at_onnx__tensor__unpack(&m->allocator, map->size, map->data);
    if (!t)
        return REFUSE(say, ATTEND_EFORMAT, "it is no tensor, or is damaged or cut short");
    int status = at_onnx_read_tensor(m, t, &v, say);
    if (status == 0) {
        int64_t bytes = at_onnx_count(&v.shape) * (int64_t)attend_type_size(v.type);
        *out = (attend_array){v.type, v.shape, malloc((size_t)bytes + 1), bytes};
        if (out->data)
            memcpy(out->data, v.data, (size_t)bytes);
        else
            status = REFUSE(say, ATTEND_ENOMEM, "no memory for %lld bytes", (long long)bytes);
    }
    at_onnx__tensor__free_unpacked(t, &m->allocator);
    return status;
}

int attend_onnx_tensor_read(const char *path, attend_array *out, char *err, size_t errlen)
{
    struct at_os_map map;
    char why[400] = "";
    int status = at_os_map_file(&map, path, err, errlen);
    if (status < 0)
        return status;
    attend_onnx *m = calloc(1, sizeof *m);
    status = m ? tensor_file(m, &map, out, &(struct onnx_say){why, sizeof why})
               : at_say(why, sizeof why, ATTEND_ENOMEM, "no memory");
    attend_onnx_free(m);
    at_os_unmap(&map);
    return status < 0 ? at_say(err, errlen, status, "\"%s\": %s", path, why) : 0;
}
