/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plots as inline SVG: axes with units and round ticks, lines, stacked areas, bars, rasters, marks
 * across, legends, and read-outs that a script may show on hover. Colours are CSS classes, so one
 * plot serves light and dark. All plots share one size in user units; the page scales them.
 */
#ifndef SHOAL_SIM_HTML_PLOT_H
#define SHOAL_SIM_HTML_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "html.h"

/* User units: small enough that text is readable on a phone, see report.css. */
#define PLOT_WIDTH  480
#define PLOT_HEIGHT 270
/* Width of a letter at the size it has on a phone, about. */
#define PLOT_LETTER 8.5

/* One axis in the data's own unit; ticks are shown divided by `unit`. */
struct plot_axis {
    char title[80];        /* with the unit: "time since the first pull (s)" */
    double low, high;      /* high > low; for `log` low > 0 */
    double unit;           /* > 0 */
    const char *unit_name; /* borrowed */
    bool log;
    bool down;                /* a y axis with its low end on top */
    const char *const *names; /* borrowed; NULL: a number line. Else names at 0, 1, .. high - 1 */
};

/* A number line from 0 to `high` in units of its own: "nodes". */
void plot_axis_number(struct plot_axis *axis, const char *what, const char *unit_name, double high);
/* From 0 to `high`, the unit chosen by size and written behind `what`: s, min, h. */
void plot_axis_time(struct plot_axis *axis, const char *what, double high_s);
/* The same for bytes (KiB, MiB, ..), and for bytes per second shown as bit/s, kbit/s, .. */
void plot_axis_bytes(struct plot_axis *axis, const char *what, double high);
void plot_axis_rate(struct plot_axis *axis, const char *what, double high);
/* Moves `high` to the next round tick, so that the highest point lies inside. */
void plot_axis_round(struct plot_axis *axis);

struct plot {
    FILE *to;
    struct plot_axis x, y;
    double left, right, top, bottom; /* of the data's area, in user units */
};

/* Opens the SVG and draws the axes. `id` of [a-z-]; `title` and `summary` are read to those who do
 * not see. The area's left edge leaves room for y ticks. */
void plot_begin(struct plot *plot, FILE *to, const char *id, const char *title,
                const char *summary);
void plot_end(struct plot *plot);
/* Place of a value in user units, kept inside the area. */
double plot_x(const struct plot *plot, double value);
double plot_y(const struct plot *plot, double value);

/* `style`: CSS classes, for example "c-origin" or "c-bound dash". A line through count points. */
void plot_line(struct plot *plot, const char *style, const double *x, const double *y,
               size_t count);
/* The same with a dot on every point. */
void plot_dots(struct plot *plot, const char *style, const double *x, const double *y,
               size_t count);
/* Between two lines over the same x; `low` NULL: from the axis. */
void plot_area(struct plot *plot, const char *style, const double *x, const double *low,
               const double *high, size_t count);
/* A bar from the x axis between two x values. */
void plot_bar(struct plot *plot, const char *style, double from, double to, double height);
/* A line across the whole area at a value of x or y, with a label. For x the label stands left of
 * the line where there is room, on top or at the bottom (`low`); for y above it, at one end. */
void plot_mark_x(struct plot *plot, const char *style, double value, const char *label, bool low);
void plot_mark_y(struct plot *plot, const char *style, double value, const char *label,
                 bool at_left);
/* Rectangles of `rows` x `columns` over the whole area, first row on top: CSS classes h0, h1, ...
 */
void plot_raster(struct plot *plot, const uint8_t *levels, uint32_t rows, uint32_t columns);
/* Text in the lower right corner of the area. */
void plot_note(struct plot *plot, const char *text);

/* A label from the left and a bar from the y axis in row `row` of y.high rows; `label` at its end.
 */
void plot_bar_across(struct plot *plot, const char *style, size_t row, double value,
                     const char *label);

/* A series as hover shows it: values of the y axis at places of the x axis. All borrowed. */
struct plot_values {
    const char *style, *name;
    const double *x, *y;
    size_t count;
};
/* Hands a series to the page's script, as data; nothing is seen of it without the script. */
void plot_read(struct plot *plot, const struct plot_values *values);

struct plot_key {
    const char *style, *name; /* borrowed */
    bool is_line;             /* else a filled box */
};
/* A list under the plot: what each colour means. */
void plot_legend(FILE *to, const struct plot_key *keys, size_t count);

#endif
