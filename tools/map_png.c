/* SPDX-License-Identifier: MIT */
/* Attention maps as one picture: a row of maps a layer, a column a head, tokens beside them where
 * cells are as large as letters, and the scale of colours.  libpng writes it. */
#include "map.h"

#ifdef HAVE_LIBPNG

#    include "os.h"

#    include <inttypes.h>
#    include <math.h>
#    include <png.h>
#    include <stdio.h>
#    include <stdlib.h>
#    include <string.h>

enum {
    LETTER = 6, /* pixels of a letter with its gap, across; */
    LINE = 8,   /* and down */
    GAP = 10,   /* around maps */
    TITLE = 12, /* above maps */
    SCALE = 40, /* the scale at the right */
    WIDTH = 2400,
    LABEL = 14 /* letters of a token, at most */
};

/* Letters of 5 columns, each from the top (bit 0) down, from ' ' to '~'. */
static const unsigned char font[95][5] = {
    {0x00, 0x00, 0x00, 0x00, 0x00},
    {0x00, 0x00, 0x5f, 0x00, 0x00},
    {0x00, 0x07, 0x00, 0x07, 0x00},
    {0x14, 0x7f, 0x14, 0x7f, 0x14},
    {0x24, 0x2a, 0x7f, 0x2a, 0x12},
    {0x23, 0x13, 0x08, 0x64, 0x62},
    {0x36, 0x49, 0x56, 0x20, 0x50},
    {0x00, 0x00, 0x07, 0x00, 0x00},
    {0x00, 0x1c, 0x22, 0x41, 0x00},
    {0x00, 0x41, 0x22, 0x1c, 0x00},
    {0x2a, 0x1c, 0x7f, 0x1c, 0x2a},
    {0x08, 0x08, 0x3e, 0x08, 0x08},
    {0x00, 0x80, 0x60, 0x00, 0x00},
    {0x08, 0x08, 0x08, 0x08, 0x08},
    {0x00, 0x60, 0x60, 0x00, 0x00},
    {0x20, 0x10, 0x08, 0x04, 0x02},
    {0x3e, 0x51, 0x49, 0x45, 0x3e},
    {0x00, 0x42, 0x7f, 0x40, 0x00},
    {0x62, 0x51, 0x49, 0x49, 0x46},
    {0x22, 0x41, 0x49, 0x49, 0x36},
    {0x18, 0x14, 0x12, 0x7f, 0x10},
    {0x27, 0x45, 0x45, 0x45, 0x39},
    {0x3c, 0x4a, 0x49, 0x49, 0x30},
    {0x01, 0x71, 0x09, 0x05, 0x03},
    {0x36, 0x49, 0x49, 0x49, 0x36},
    {0x06, 0x49, 0x49, 0x29, 0x1e},
    {0x00, 0x36, 0x36, 0x00, 0x00},
    {0x00, 0x80, 0x76, 0x00, 0x00},
    {0x08, 0x14, 0x22, 0x41, 0x00},
    {0x14, 0x14, 0x14, 0x14, 0x14},
    {0x00, 0x41, 0x22, 0x14, 0x08},
    {0x02, 0x01, 0x51, 0x09, 0x06},
    {0x3e, 0x41, 0x5d, 0x55, 0x1e},
    {0x7e, 0x09, 0x09, 0x09, 0x7e},
    {0x7f, 0x49, 0x49, 0x49, 0x36},
    {0x3e, 0x41, 0x41, 0x41, 0x22},
    {0x7f, 0x41, 0x41, 0x41, 0x3e},
    {0x7f, 0x49, 0x49, 0x49, 0x41},
    {0x7f, 0x09, 0x09, 0x09, 0x01},
    {0x3e, 0x41, 0x49, 0x49, 0x3a},
    {0x7f, 0x08, 0x08, 0x08, 0x7f},
    {0x00, 0x41, 0x7f, 0x41, 0x00},
    {0x30, 0x40, 0x40, 0x40, 0x3f},
    {0x7f, 0x08, 0x14, 0x22, 0x41},
    {0x7f, 0x40, 0x40, 0x40, 0x40},
    {0x7f, 0x02, 0x0c, 0x02, 0x7f},
    {0x7f, 0x04, 0x08, 0x10, 0x7f},
    {0x3e, 0x41, 0x41, 0x41, 0x3e},
    {0x7f, 0x09, 0x09, 0x09, 0x06},
    {0x3e, 0x41, 0x51, 0x21, 0x5e},
    {0x7f, 0x09, 0x19, 0x29, 0x46},
    {0x26, 0x49, 0x49, 0x49, 0x32},
    {0x01, 0x01, 0x7f, 0x01, 0x01},
    {0x3f, 0x40, 0x40, 0x40, 0x3f},
    {0x1f, 0x20, 0x40, 0x20, 0x1f},
    {0x3f, 0x40, 0x38, 0x40, 0x3f},
    {0x63, 0x14, 0x08, 0x14, 0x63},
    {0x03, 0x04, 0x78, 0x04, 0x03},
    {0x61, 0x51, 0x49, 0x45, 0x43},
    {0x00, 0x7f, 0x41, 0x41, 0x00},
    {0x02, 0x04, 0x08, 0x10, 0x20},
    {0x00, 0x41, 0x41, 0x7f, 0x00},
    {0x04, 0x02, 0x01, 0x02, 0x04},
    {0x80, 0x80, 0x80, 0x80, 0x80},
    {0x00, 0x01, 0x02, 0x04, 0x00},
    {0x20, 0x54, 0x54, 0x54, 0x78},
    {0x7f, 0x44, 0x44, 0x44, 0x38},
    {0x38, 0x44, 0x44, 0x44, 0x28},
    {0x38, 0x44, 0x44, 0x44, 0x7f},
    {0x38, 0x54, 0x54, 0x54, 0x18},
    {0x08, 0x7e, 0x09, 0x09, 0x02},
    {0x18, 0xa4, 0xa4, 0xa4, 0x7c},
    {0x7f, 0x04, 0x04, 0x04, 0x78},
    {0x00, 0x44, 0x7d, 0x40, 0x00},
    {0x40, 0x80, 0x84, 0x7d, 0x00},
    {0x7f, 0x10, 0x28, 0x44, 0x00},
    {0x00, 0x41, 0x7f, 0x40, 0x00},
    {0x7c, 0x04, 0x78, 0x04, 0x78},
    {0x7c, 0x04, 0x04, 0x04, 0x78},
    {0x38, 0x44, 0x44, 0x44, 0x38},
    {0xfc, 0x24, 0x24, 0x24, 0x18},
    {0x18, 0x24, 0x24, 0x24, 0xfc},
    {0x7c, 0x08, 0x04, 0x04, 0x08},
    {0x48, 0x54, 0x54, 0x54, 0x24},
    {0x04, 0x3f, 0x44, 0x44, 0x20},
    {0x3c, 0x40, 0x40, 0x40, 0x7c},
    {0x1c, 0x20, 0x40, 0x20, 0x1c},
    {0x3c, 0x40, 0x30, 0x40, 0x3c},
    {0x44, 0x28, 0x10, 0x28, 0x44},
    {0x1c, 0xa0, 0xa0, 0xa0, 0x7c},
    {0x44, 0x64, 0x54, 0x4c, 0x44},
    {0x00, 0x08, 0x36, 0x41, 0x00},
    {0x00, 0x00, 0x77, 0x00, 0x00},
    {0x00, 0x41, 0x36, 0x08, 0x00},
    {0x10, 0x08, 0x18, 0x10, 0x08}
};

struct picture {
    const struct map *m;
    int64_t layers, heads, rows, cols;
    int64_t cell;        /* pixels of one */
    int64_t left, above; /* room for the tokens */
    int64_t width, height;
    unsigned char *rgb;
};

static void set(struct picture *p, int64_t x, int64_t y, const unsigned char rgb[3])
{
    if (x >= 0 && x < p->width && y >= 0 && y < p->height)
        memcpy(p->rgb + 3 * (y * p->width + x), rgb, 3);
}

/* Dark is much; as on the page, by the root, since most weights are small. */
static void colour(double weight, unsigned char rgb[3])
{
    static const double stop[5][3] = {
        {255, 255, 255},
        {244, 201, 124},
        {222, 106, 72 },
        {134, 36,  96 },
        {28,  12,  52 }
    };
    double at = 4 * sqrt(fmin(fmax(weight, 0), 1));
    int i = at < 3 ? (int)at : 3;
    for (int c = 0; c < 3; c++)
        rgb[c] = (unsigned char)lrint(stop[i][c] + (at - i) * (stop[i + 1][c] - stop[i][c]));
}

/* ---- text ---- */

/* The n-th letter of UTF-8 text, which is moved past it; 0: the end.  What is not ASCII is '?'. */
static int letter(const char **text)
{
    int c = (unsigned char)**text;
    if (!c)
        return 0;
    ++*text;
    while (((unsigned char)**text & 0xc0) == 0x80)
        ++*text;
    return c >= 0x20 && c < 0x7f ? c : '?';
}

static int64_t length(const char *text)
{
    int64_t n = 0;
    while (letter(&text))
        n++;
    return n;
}

/* From (x, y) to the right, or upwards. */
static void write_text(struct picture *p, int64_t x, int64_t y, const char *text, bool up)
{
    static const unsigned char ink[3] = {40, 40, 48};
    int c;
    for (int n = 0; n < LABEL && (c = letter(&text)); n++)
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 8; k++)
                if (font[c - ' '][i] >> k & 1)
                    set(p, up ? x + k : x + n * LETTER + i, up ? y - n * LETTER - i : y + k, ink);
}

static const char *shown(const char *label)
{
    return *label == ' ' ? label + 1 : label;
}

static int64_t longest(char **label, int64_t n)
{
    int64_t most = 0;
    for (int64_t i = 0; i < n; i++)
        if (length(shown(label[i])) > most)
            most = length(shown(label[i]));
    return most < LABEL ? most : LABEL;
}

/* ---- layout ---- */

/* Tokens have names where a cell is a token, and as high as a letter. */
static bool named(const struct picture *p)
{
    return p->cell >= LINE && p->rows == p->m->n && p->cols == p->m->ncol;
}

static int64_t map_width(const struct picture *p)
{
    return p->left + p->cols * p->cell + GAP;
}

static int64_t map_height(const struct picture *p)
{
    return TITLE + p->above + p->rows * p->cell + GAP;
}

/* The largest cells with which the picture is not too wide. */
static void lay_out(struct picture *p)
{
    for (p->cell = 16;; p->cell--) {
        p->left = named(p) ? longest(p->m->label, p->rows) * LETTER + 4 : 0;
        p->above = named(p) ? longest(p->m->column, p->cols) * LETTER + 4 : 0;
        p->width = GAP + p->heads * map_width(p) + SCALE;
        p->height = GAP + p->layers * map_height(p);
        if (p->cell == 1 || p->width <= WIDTH)
            break;
    }
    if (p->height < GAP + 120)
        p->height = GAP + 120; /* room for the scale */
}

/* ---- drawing ---- */

static void draw_names(struct picture *p, int64_t x, int64_t y)
{
    for (int64_t i = 0; named(p) && i < p->rows; i++) {
        const char *text = shown(p->m->label[i]);
        int64_t n = length(text) < LABEL ? length(text) : LABEL;
        write_text(p, x - 4 - n * LETTER, y + i * p->cell + (p->cell - LINE) / 2, text, false);
    }
    for (int64_t j = 0; named(p) && j < p->cols; j++)
        write_text(p, x + j * p->cell + (p->cell - LINE) / 2, y - 4, shown(p->m->column[j]), true);
}

static void draw_map(struct picture *p, int64_t layer, int64_t head)
{
    static const unsigned char edge[3] = {176, 176, 184};
    const float *w =
        (const float *)p->m->cells.data + (layer * p->heads + head) * p->rows * p->cols;
    int64_t x0 = GAP + head * map_width(p) + p->left;
    int64_t y0 = GAP + layer * map_height(p) + TITLE + p->above;
    int64_t across = p->cols * p->cell, down = p->rows * p->cell;
    unsigned char rgb[3];
    char title[48];
    snprintf(title, sizeof title, "%" PRId64 ".%" PRId64, layer, head);
    write_text(p, x0, y0 - p->above - TITLE, title, false);
    for (int64_t y = 0; y < down; y++)
        for (int64_t x = 0; x < across; x++) {
            colour((double)w[y / p->cell * p->cols + x / p->cell], rgb);
            set(p, x0 + x, y0 + y, rgb);
        }
    for (int64_t x = -1; x <= across; x++) {
        set(p, x0 + x, y0 - 1, edge);
        set(p, x0 + x, y0 + down, edge);
    }
    for (int64_t y = -1; y <= down; y++) {
        set(p, x0 - 1, y0 + y, edge);
        set(p, x0 + across, y0 + y, edge);
    }
    draw_names(p, x0, y0);
}

/* Down the right side, 1 at the top; by the root, too, so that a quarter is in the middle. */
static void draw_scale(struct picture *p)
{
    enum { TALL = 100 };
    const int64_t x = p->width - SCALE, y = GAP + 4;
    unsigned char rgb[3];
    for (int i = 0; i <= TALL; i++) {
        double root = 1 - (double)i / TALL;
        colour(root * root, rgb);
        for (int k = 0; k < 10; k++)
            set(p, x + k, y + i, rgb);
    }
    write_text(p, x + 13, y - 3, "1", false);
    write_text(p, x + 13, y + TALL / 2 - 3, "1/4", false);
    write_text(p, x + 13, y + TALL - 3, "0", false);
}

/* ---- the file ---- */

static int write_file(struct picture *p, const char *path)
{
    char err[320];
    struct at_os_file *file;
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)p->width,
                       .height = (png_uint_32)p->height,
                       .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *data = malloc(size);
    if (!data)
        return cmd_fail(p->m->l, path, "no memory for a picture");
    if (!png_image_write_to_memory(&image, data, &size, 0, p->rgb, 0, NULL)) {
        free(data);
        return cmd_fail(p->m->l, path, "%s", image.message);
    }
    int status = at_os_file_new(&file, path, err, sizeof err);
    if (status == 0) {
        at_os_file_write(file, data, size);
        status = at_os_file_finish(file, err, sizeof err);
    }
    free(data);
    return status < 0 ? cmd_fail(p->m->l, NULL, "%s", err) : CMD_DONE;
}

int map_write_png(const struct map *m, const char *path)
{
    const int64_t *dim = m->cells.shape.dim;
    struct picture p = {.m = m, .layers = dim[0], .heads = dim[1], .rows = dim[2], .cols = dim[3]};
    lay_out(&p);
    if (p.width > 30000 || p.height > 30000)
        return cmd_fail(m->l, path, "a picture of %" PRId64 " x %" PRId64 " pixels is too large",
                        p.width, p.height);
    p.rgb = malloc((size_t)(3 * p.width * p.height));
    if (!p.rgb)
        return cmd_fail(m->l, path, "no memory for a picture");
    memset(p.rgb, 255, (size_t)(3 * p.width * p.height));
    for (int64_t i = 0; i < p.layers * p.heads; i++)
        draw_map(&p, i / p.heads, i % p.heads);
    draw_scale(&p);
    int status = write_file(&p, path);
    free(p.rgb);
    return status;
}

#else

int map_write_png(const struct map *m, const char *path)
{
    return cmd_fail(m->l, path, "this program was built without libpng, which writes pictures");
}

#endif
