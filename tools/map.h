/* SPDX-License-Identifier: MIT */
/* Attention maps as files: what cmd_map.c hands to map_page.c and map_png.c, or map_file.c reads.
 */
#ifndef MAP_H
#define MAP_H

#include "cmd.h"

struct map {
    const struct cmd_line *l;
    const char *model;  /* the file's or folder's name, for titles */
    int64_t n, ncol;    /* tokens that look, and that are looked at: the same, of a model */
    char **label;       /* [n] their text, UTF-8 */
    char **column;      /* [ncol] */
    attend_array cells; /* f32 (layers, heads, rows, columns) */
};

/* The entropy of a head, in nats: the mean over its rows of that of their cells. */
double map_entropy(const struct map *m, int64_t layer, int64_t head);

/* Each writes a whole file and returns an exit status. */
/* Weights and names of tokens from files, as --weights and --labels say; map_free frees them. */
int map_read_files(struct map *m);
void map_free(struct map *m);
int map_write_page(const struct map *m, const char *file);
int map_write_png(const struct map *m, const char *file);

#endif
