/* SPDX-License-Identifier: Apache-2.0 */
/* Axes of the plots: units, round ticks, the frame; see html_plot.h. Marks are in html_marks.c. */
#include "html_plot.h"

#include <math.h>
#include <string.h>

#define TICKS_MAX 12
/* Names under one axis. */
#define NAMES_MAX 9
/* Room in user units: y labels of five digits at the phone's larger letters, one line of x labels
 * and one of the title. */
#define MARGIN_LEFT   58.0
#define MARGIN_NAMES  118.0 /* for names of rows */
#define MARGIN_RIGHT  14.0
#define MARGIN_TOP    26.0
#define MARGIN_LOW    8.0 /* where no title stands above */
#define MARGIN_BOTTOM 46.0
/* Wider is no ticks, closer is labels that touch. */
#define TICKS_WANTED 5.0

/* Ten of a time's unit, then the next: as html_time does. */
#define MINUTES_FROM 10

struct unit {
    double size;
    const char *name;
};

static const struct unit byte_units[] = {
    {1, "bytes"},
    {1024, "KiB"},
    {1048576, "MiB"},
    {1073741824.0, "GiB"},
    {1099511627776.0, "TiB"},
    {1125899906842624.0, "PiB"},
};
/* In bytes per second. */
static const struct unit rate_units[] = {
    {0.125, "bit/s"}, {125, "kbit/s"}, {125e3, "Mbit/s"}, {125e6, "Gbit/s"}, {125e9, "Tbit/s"},
};
static const struct unit time_units[] = {{1, "s"}, {60, "min"}, {3600, "h"}};

static void set_axis(struct plot_axis *axis, const char *what, const struct unit *unit, double high)
{
    *axis = (struct plot_axis){
        .high = high > 0 ? high : unit->size, .unit = unit->size, .unit_name = unit->name};
    snprintf(axis->title, sizeof axis->title, "%s%s%s%s", what, unit->name[0] != '\0' ? " (" : "",
             unit->name, unit->name[0] != '\0' ? ")" : "");
}

/* The largest unit of which `high` has at least `least`. */
static const struct unit *unit_for(const struct unit *units, size_t count, double high,
                                   double least)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++) {
        if (high >= least * units[i].size)
            best = i;
    }
    return &units[best];
}

void plot_axis_number(struct plot_axis *axis, const char *what, const char *unit_name, double high)
{
    struct unit unit = {1, unit_name};
    set_axis(axis, what, &unit, high);
}

void plot_axis_time(struct plot_axis *axis, const char *what, double high_s)
{
    const size_t count = sizeof time_units / sizeof time_units[0];
    set_axis(axis, what, unit_for(time_units, count, high_s, MINUTES_FROM), high_s);
}

void plot_axis_bytes(struct plot_axis *axis, const char *what, double high)
{
    const size_t count = sizeof byte_units / sizeof byte_units[0];
    set_axis(axis, what, unit_for(byte_units, count, high, 1), high);
}

void plot_axis_rate(struct plot_axis *axis, const char *what, double high)
{
    const size_t count = sizeof rate_units / sizeof rate_units[0];
    set_axis(axis, what, unit_for(rate_units, count, high, 1), high);
}

/* 1, 2 or 5 times a power of ten, in the axis' unit: about TICKS_WANTED fit. */
static double tick_step(const struct plot_axis *axis)
{
    double rough = (axis->high - axis->low) / axis->unit / TICKS_WANTED;
    double power = pow(10, floor(log10(rough)));
    double share = rough / power;
    return power * (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10);
}

void plot_axis_round(struct plot_axis *axis)
{
    double step = tick_step(axis) * axis->unit;
    axis->high = step * ceil(axis->high / step - 1e-9);
}

/* Ticks of a logarithmic axis: powers of ten, and 2 and 5 times them if few fit. */
static size_t log_ticks(const struct plot_axis *axis, double out[TICKS_MAX])
{
    double decades = log10(axis->high / axis->low);
    size_t count = 0;
    for (double power = pow(10, floor(log10(axis->low / axis->unit)));
         power * axis->unit <= axis->high && count < TICKS_MAX; power *= 10) {
        static const double times[] = {1, 2, 5};
        for (size_t i = 0; i < (decades < 2.5 ? 3 : 1) && count < TICKS_MAX; i++) {
            double value = power * times[i] * axis->unit;
            if (value >= axis->low * (1 - 1e-9) && value <= axis->high * (1 + 1e-9))
                out[count++] = value;
        }
    }
    return count;
}

static size_t ticks(const struct plot_axis *axis, double out[TICKS_MAX])
{
    if (axis->log)
        return log_ticks(axis, out);
    size_t count = 0;
    double step = tick_step(axis) * axis->unit;
    for (double i = ceil(axis->low / step - 1e-9);
         i * step <= axis->high + step * 1e-6 && count < TICKS_MAX; i++)
        out[count++] = i * step + 0.0; /* no -0 */
    return count;
}

static const char *tick_text(const struct plot_axis *axis, double value,
                             char out[HTML_NUMBER_BYTES])
{
    double step = axis->log ? value / axis->unit : tick_step(axis);
    double shown = value / axis->unit;
    if (step >= 1 && shown >= 1000)
        return html_count(out, (uint64_t)(shown + 0.5));
    int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    snprintf(out, HTML_NUMBER_BYTES, "%.*f", decimals > 9 ? 9 : decimals, shown);
    return out;
}

static double share_of(const struct plot_axis *axis, double value)
{
    double share = axis->log ? log(fmax(value, axis->low) / axis->low) / log(axis->high / axis->low)
                             : (value - axis->low) / (axis->high - axis->low);
    return isfinite(share) ? fmin(fmax(share, 0), 1) : 0;
}

double plot_x(const struct plot *plot, double value)
{
    return plot->left + (plot->right - plot->left) * share_of(&plot->x, value);
}

double plot_y(const struct plot *plot, double value)
{
    double share = share_of(&plot->y, value), height = plot->bottom - plot->top;
    return plot->y.down ? plot->top + height * share : plot->bottom - height * share;
}

/* Names at their places, as many and as much of each as there is room for. */
static void x_names(const struct plot *plot)
{
    size_t count = plot->x.names == NULL ? 0 : (size_t)plot->x.high;
    size_t every = count / NAMES_MAX + 1;
    double room = (plot->right - plot->left) / (double)(count > 0 ? count : 1) * (double)every;
    for (size_t i = 0; i < count; i += every) {
        fprintf(plot->to, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                plot_x(plot, (double)i + 0.5), plot->bottom + 16);
        html_text_cut(plot->to, plot->x.names[i], (size_t)(room / PLOT_LETTER));
        fputs("</text>\n", plot->to);
    }
}

static void x_axis(const struct plot *plot)
{
    double at[TICKS_MAX];
    char text[HTML_NUMBER_BYTES];
    size_t count = plot->x.names == NULL ? ticks(&plot->x, at) : 0;
    for (size_t i = 0; i < count; i++) {
        double x = plot_x(plot, at[i]);
        fprintf(plot->to,
                "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>"
                "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                x, plot->top, plot->bottom, x, plot->bottom + 16, tick_text(&plot->x, at[i], text));
    }
    x_names(plot);
    fprintf(plot->to,
            "<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>"
            "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
            plot->left, plot->bottom, plot->right, (plot->left + plot->right) / 2,
            PLOT_HEIGHT - 9.0);
    html_text(plot->to, plot->x.title);
    fputs("</text>\n", plot->to);
}

/* Names of rows, first on top, in place of numbers. */
static void y_names(const struct plot *plot)
{
    double step = (plot->bottom - plot->top) / plot->y.high;
    for (size_t i = 0; i < (size_t)plot->y.high; i++) {
        fprintf(plot->to, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">",
                plot->left - 6, plot->top + step * ((double)i + 0.5) + 4);
        html_text(plot->to, plot->y.names[i]);
        fputs("</text>\n", plot->to);
    }
}

static void y_axis(const struct plot *plot)
{
    if (plot->y.names != NULL) {
        y_names(plot);
        return;
    }
    double at[TICKS_MAX];
    char text[HTML_NUMBER_BYTES];
    size_t count = ticks(&plot->y, at);
    for (size_t i = 0; i < count; i++) {
        double y = plot_y(plot, at[i]);
        fprintf(plot->to,
                "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>"
                "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                plot->left, y, plot->right, plot->left - 6, y + 4,
                tick_text(&plot->y, at[i], text));
    }
    /* Its name stands level above the axis: nobody has to turn the head. */
    fprintf(plot->to, "<text class=\"name\" x=\"4\" y=\"14\">");
    html_text(plot->to, plot->y.title);
    fputs("</text>\n", plot->to);
}

void plot_begin(struct plot *plot, FILE *to, const char *id, const char *title, const char *summary)
{
    plot->to = to;
    plot->left = plot->y.names != NULL ? MARGIN_NAMES : MARGIN_LEFT;
    plot->right = PLOT_WIDTH - MARGIN_RIGHT;
    plot->top = plot->y.names != NULL ? MARGIN_LOW : MARGIN_TOP;
    plot->bottom = PLOT_HEIGHT - MARGIN_BOTTOM;
    fprintf(to,
            "<svg class=\"plot\" viewBox=\"0 0 %d %d\" role=\"img\" tabindex=\"0\" "
            "aria-labelledby=\"%s-t %s-d\">\n<title id=\"%s-t\">",
            PLOT_WIDTH, PLOT_HEIGHT, id, id, id);
    html_text(to, title);
    fprintf(to, "</title>\n<desc id=\"%s-d\">", id);
    html_text(to, summary);
    fputs("</desc>\n", to);
    x_axis(plot);
    y_axis(plot);
}

void plot_end(struct plot *plot)
{
    fputs("</svg>\n", plot->to);
}
