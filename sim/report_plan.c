/* SPDX-License-Identifier: Apache-2.0 */
/* JSON and CSV of a sweep; see report.h. Its page is in report_sweep.c. */
#include <inttypes.h>

#include "report_data.h"

static int json_list(FILE *to, const char *name, const char *const *texts, size_t count)
{
    int err = 0;
    fprintf(to, ",\n \"%s\": [", name);
    for (size_t i = 0; i < count && err == 0; i++) {
        fputs(i == 0 ? "" : ", ", to);
        err = html_json(to, texts[i]);
    }
    fputs("]", to);
    return err;
}

static int json_row(FILE *to, const struct report_plan *plan, const struct report_plan_row *row)
{
    fputs("{\"values\": {", to);
    for (size_t i = 0; i < plan->key_count; i++) {
        fputs(i == 0 ? "" : ", ", to);
        int err = html_json(to, plan->keys[i]);
        fputs(": ", to);
        if (err == 0)
            err = html_json(to, row->values[i]);
        if (err != 0)
            return err;
    }
    fputs("},\n ", to);
    report__json_figures(&row->report, to);
    fputs("}", to);
    return 0;
}

int report_plan_json(const struct report_plan *plan, FILE *to)
{
    fputs("{\"scenario\": ", to);
    int err = html_json(to, plan->scenario);
    fputs(",\n \"command\": ", to);
    if (err == 0)
        err = html_json(to, plan->command);
    if (err == 0)
        err = json_list(to, "keys", plan->keys, plan->key_count);
    if (err == 0)
        err = json_list(to, "answers", plan->answers, plan->answer_count);
    fputs(",\n \"rows\": [\n", to);
    for (size_t i = 0; i < plan->row_count && err == 0; i++) {
        fputs(i == 0 ? "" : ",\n", to);
        err = json_row(to, plan, &plan->rows[i]);
    }
    fputs("\n]}\n", to);
    return err != 0 ? err : html_done(to);
}

static void csv_figures(FILE *to, const struct report *report)
{
    fprintf(to, ",%" PRIu64 ",%u,%u,%" PRIu64 ",%.3f,%.3f,%.3f,%.3f,%.3f,%.3f", report->seed,
            report->nodes, report->zones, report->bytes, report->bound_s, report->p50_s,
            report->p90_s, report->p99_s, report->p999_s, report->last_s);
    fprintf(to, ",%.4f,%.4f,%.4f,%" PRIu64 ",%" PRIu64 ",%.5f,%.2f,%u,%" PRIu64 ",%.3f",
            report->origin_copies, report->cross_zone_copies, report->hit_ratio,
            report->origin_bytes, report->cross_zone_bytes, report->control_fraction,
            report->upload_skew, report->pulls_failed, report->wrong_bytes, report->no_mesh_last_s);
    fprintf(to, ",%" PRIu64 ",%.2f,%.2f,%.1f,%016" PRIx64 "\n", report->events, report->wall_s,
            report->cpu_s, report->rss_mib, report->trace_hash);
}

int report_plan_csv(const struct report_plan *plan, FILE *to)
{
    for (size_t i = 0; i < plan->key_count; i++) {
        fputs(i == 0 ? "" : ",", to);
        html_csv(to, plan->keys[i]);
    }
    fputs(",seed,nodes,zones,bytes,bound_s,p50_s,p90_s,p99_s,p999_s,last_s,origin_copies,"
          "cross_zone_copies,hit_ratio,origin_bytes,cross_zone_bytes,control_fraction,upload_skew,"
          "pulls_failed,wrong_bytes,no_mesh_last_s,events,wall_s,cpu_s,rss_mib,trace_hash\n",
          to);
    for (size_t row = 0; row < plan->row_count; row++) {
        for (size_t i = 0; i < plan->key_count; i++) {
            fputs(i == 0 ? "" : ",", to);
            html_csv(to, plan->rows[row].values[i]);
        }
        csv_figures(to, &plan->rows[row].report);
    }
    return html_done(to);
}
