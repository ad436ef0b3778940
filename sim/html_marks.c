/* SPDX-License-Identifier: Apache-2.0 */
/* What stands inside the axes: lines, areas, bars, rasters, labels, read-outs; see html_plot.h. */
#include <math.h>
#include <string.h>

#include "html_plot.h"

/* Levels a raster may have; report.css has a class for each. */
#define LEVELS_MAX 11

static void path_points(struct plot *plot, const double *x, const double *y, size_t count,
                        char first)
{
    for (size_t i = 0; i < count; i++)
        fprintf(plot->to, "%c%.1f %.1f", i == 0 ? first : 'L', plot_x(plot, x[i]),
                plot_y(plot, y[i]));
}

void plot_line(struct plot *plot, const char *style, const double *x, const double *y, size_t count)
{
    if (count == 0)
        return;
    fprintf(plot->to, "<path class=\"mark line %s\" d=\"", style);
    path_points(plot, x, y, count, 'M');
    fputs("\"/>\n", plot->to);
}

void plot_dots(struct plot *plot, const char *style, const double *x, const double *y, size_t count)
{
    plot_line(plot, style, x, y, count);
    for (size_t i = 0; i < count; i++)
        fprintf(plot->to, "<circle class=\"mark dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n",
                style, plot_x(plot, x[i]), plot_y(plot, y[i]));
}

void plot_area(struct plot *plot, const char *style, const double *x, const double *low,
               const double *high, size_t count)
{
    if (count == 0)
        return;
    fprintf(plot->to, "<path class=\"mark area %s\" d=\"", style);
    path_points(plot, x, high, count, 'M');
    if (low == NULL) {
        fprintf(plot->to, "L%.1f %.1fL%.1f %.1f", plot_x(plot, x[count - 1]), plot->bottom,
                plot_x(plot, x[0]), plot->bottom);
    } else {
        for (size_t i = count; i-- > 0;)
            fprintf(plot->to, "L%.1f %.1f", plot_x(plot, x[i]), plot_y(plot, low[i]));
    }
    fputs("Z\"/>\n", plot->to);
}

void plot_bar(struct plot *plot, const char *style, double from, double to, double height)
{
    double left = plot_x(plot, from), right = plot_x(plot, to), top = plot_y(plot, height);
    fprintf(plot->to,
            "<rect class=\"mark bar %s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
            style, left, top, fmax(right - left, 0.1), plot->bottom - top);
}

void plot_bar_across(struct plot *plot, const char *style, size_t row, double value,
                     const char *label)
{
    double step = (plot->bottom - plot->top) / plot->y.high;
    double top = plot->top + step * ((double)row + 0.18), right = plot_x(plot, value);
    /* A long bar has its label inside its end: outside there is no room. */
    bool inside = right > plot->left + 0.72 * (plot->right - plot->left);
    fprintf(plot->to,
            "<rect class=\"mark bar %s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n"
            "<text class=\"label%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
            style, plot->left, top, fmax(right - plot->left, 1), step * 0.64, inside ? " on" : "",
            inside ? right - 6 : right + 6, top + step * 0.32 + 4, inside ? "end" : "start");
    html_text(plot->to, label);
    fputs("</text>\n", plot->to);
}

void plot_mark_x(struct plot *plot, const char *style, double value, const char *label, bool low)
{
    double x = plot_x(plot, value);
    bool left = x - plot->left > PLOT_LETTER * (double)strlen(label);
    fprintf(plot->to,
            "<path class=\"mark line %s\" d=\"M%.1f %.1fV%.1f\"/>\n"
            "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
            style, x, plot->bottom, plot->top, left ? x - 5 : x + 5,
            low ? plot->bottom - 10 : plot->top + 12, left ? "end" : "start");
    html_text(plot->to, label);
    fputs("</text>\n", plot->to);
}

void plot_mark_y(struct plot *plot, const char *style, double value, const char *label,
                 bool at_left)
{
    double y = plot_y(plot, value);
    fprintf(plot->to,
            "<path class=\"mark line %s\" d=\"M%.1f %.1fH%.1f\"/>\n"
            "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">",
            style, plot->left, y, plot->right, at_left ? plot->left + 5 : plot->right - 4, y - 5,
            at_left ? "start" : "end");
    html_text(plot->to, label);
    fputs("</text>\n", plot->to);
}

/* One path with all rectangles of a level: runs of equal cells in a row are one rectangle. */
static void raster_level(struct plot *plot, const uint8_t *levels, uint32_t rows, uint32_t columns,
                         uint8_t level)
{
    double width = (plot->right - plot->left) / columns, height = (plot->bottom - plot->top) / rows;
    bool open = false;
    for (uint32_t cell = 0; cell < rows * columns;) {
        uint32_t row = cell / columns, first = cell % columns, next = first;
        while (next < columns && levels[row * columns + next] == level)
            next++;
        cell += next > first ? next - first : 1;
        if (next == first)
            continue;
        if (!open)
            fprintf(plot->to, "<path class=\"mark h%u\" d=\"", level);
        open = true;
        fprintf(plot->to, "M%.2f %.2fh%.2fv%.2fh-%.2fz", plot->left + first * width,
                plot->top + row * height, (next - first) * width, height, (next - first) * width);
    }
    if (open)
        fputs("\"/>\n", plot->to);
}

void plot_raster(struct plot *plot, const uint8_t *levels, uint32_t rows, uint32_t columns)
{
    fputs("<g class=\"raster\">\n", plot->to);
    for (uint8_t level = 0; level < LEVELS_MAX; level++)
        raster_level(plot, levels, rows, columns, level);
    fputs("</g>\n", plot->to);
}

void plot_note(struct plot *plot, const char *text)
{
    fprintf(plot->to, "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">",
            plot->right - 4, plot->bottom - 10);
    html_text(plot->to, text);
    fputs("</text>\n", plot->to);
}

/* A value in an axis' unit, with the unit: "18.2 s". */
static void value_text(FILE *to, double value, const struct plot_axis *axis)
{
    char text[HTML_NUMBER_BYTES];
    bool counts = axis->unit_name != NULL && axis->unit_name[0] == '\0' && axis->unit == 1;
    if (counts && value >= 0 && value == floor(value))
        fputs(html_count(text, (uint64_t)value), to);
    else
        fputs(html_number(text, value / axis->unit), to);
    if (axis->unit_name != NULL && axis->unit_name[0] != '\0')
        fprintf(to, "%s%s", axis->unit_name[0] == '%' ? "" : " ", axis->unit_name);
}

/* A place of the x axis: a name, or a number with its unit. */
static void place_text(struct plot *plot, double x)
{
    const char *name = plot->x.names == NULL ? NULL : plot->x.names[(size_t)x];
    if (name == NULL)
        value_text(plot->to, x, &plot->x);
    else if (strchr(name, '|') == NULL) /* it parts the list */
        html_text(plot->to, name);
    else
        fprintf(plot->to, "%.0f", floor(x) + 1);
}

void plot_read(struct plot *plot, const struct plot_values *values)
{
    fprintf(plot->to, "<g class=\"read\" data-style=\"%s\" data-name=\"", values->style);
    html_text(plot->to, values->name);
    fprintf(plot->to, "\" data-top=\"%.1f\" data-bottom=\"%.1f\" data-x=\"", plot->top,
            plot->bottom);
    for (size_t i = 0; i < values->count; i++)
        fprintf(plot->to, "%s%.1f", i == 0 ? "" : "|", plot_x(plot, values->x[i]));
    fputs("\" data-at=\"", plot->to);
    for (size_t i = 0; i < values->count; i++) {
        fputs(i == 0 ? "" : "|", plot->to);
        place_text(plot, values->x[i]);
    }
    fputs("\" data-values=\"", plot->to);
    for (size_t i = 0; i < values->count; i++) {
        fputs(i == 0 ? "" : "|", plot->to);
        if (isfinite(values->y[i]))
            value_text(plot->to, values->y[i], &plot->y);
    }
    fputs("\"></g>\n", plot->to);
}

void plot_legend(FILE *to, const struct plot_key *keys, size_t count)
{
    fputs("<ul class=\"legend\">\n", to);
    for (size_t i = 0; i < count; i++) {
        fputs("<li><svg class=\"key\" viewBox=\"0 0 26 10\" aria-hidden=\"true\">", to);
        if (keys[i].is_line)
            fprintf(to, "<path class=\"line %s\" d=\"M1 5H25\"/>", keys[i].style);
        else
            fprintf(to, "<rect class=\"area %s\" x=\"1\" width=\"24\" height=\"10\"/>",
                    keys[i].style);
        fputs("</svg>", to);
        html_text(to, keys[i].name);
        fputs("</li>\n", to);
    }
    fputs("</ul>\n", to);
}
