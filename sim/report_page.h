/* SPDX-License-Identifier: Apache-2.0 */
/* The two halves of a run's page: its text (report_html.c) and its plots (report_plots.c). */
#ifndef SHOAL_SIM_REPORT_PAGE_H
#define SHOAL_SIM_REPORT_PAGE_H

#include "html_plot.h"
#include "report_data.h"

/* All plots of a run, each in its figure. */
void report__plots(const struct report *report, const struct report_data *data, FILE *to);

#endif
