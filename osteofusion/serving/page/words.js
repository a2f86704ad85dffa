// Numbers and names as a reader says them; the report, in report_words.py, says them alike.

const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });

export const number = (value) => plain.format(value);

/** Of a percentile, whose later digits say nothing. */
export const rough = (value) => number(Number(value.toPrecision(3)));

export const words = (name) => String(name).replace("low_bmd", "low BMD").replaceAll("_", " ");

export const unitWords = (unit) => (!unit || unit === "count" ? "" : unit.replace(/m2$/, "m²"));

/** A value with its unit. */
export const quantity = (value, unit) => `${number(value)} ${unitWords(unit)}`.trim();

/** A share as a whole percentage that never claims certainty. */
export function percent(share) {
  if (share < 0.005) return "<1\u00a0%";
  if (share > 0.995) return ">99\u00a0%";
  return `${Math.round(100 * share)}\u00a0%`;
}

/** A share as so many people out of 10, or of 100 where 10 would be too coarse. */
export function people(share) {
  if (share < 0.005) return "fewer than 1 in 100";
  if (share > 0.995) return "more than 99 in 100";
  if (share < 0.1 || share > 0.9) return `about ${Math.round(100 * share)}\u00a0in\u00a0100`;
  return `about ${Math.round(10 * share)}\u00a0in\u00a010`;
}

/** Low BMD as a patient would say it. */
export const condition = (positive) => positive.replace(/low BMD/i, "low bone density");

/** The risk where it is as frequent as `prevalence`, not as in the cohort (Bayes' rule). */
export function atPrevalence(risk, cohort, prevalence) {
  const low = (risk * prevalence) / cohort;
  const normal = ((1 - risk) * (1 - prevalence)) / (1 - cohort);
  return low / (low + normal);
}

export function fileSize(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 ** 2) return `${Math.round(bytes / 1024)} KB`;
  return `${number(Math.round((10 * bytes) / 1024 ** 2) / 10)} MB`;
}
