import { defineCheck } from "../check.js";
import type { Environment } from "../environment.js";
import { namesIn, textOf } from "../host.js";

interface Place {
  readonly root: string;
  readonly environment: Environment;
}

/** What kind of container this is in, as far as it tells; null where nothing tells of one. */
export function containerOf(host: Place): string | null {
  const { KUBERNETES_SERVICE_HOST, container, APPTAINER_CONTAINER, SINGULARITY_CONTAINER } = host.environment;
  if (KUBERNETES_SERVICE_HOST) return "Kubernetes";
  if (APPTAINER_CONTAINER || SINGULARITY_CONTAINER) return "Apptainer";
  if (namesIn(host, "").includes(".dockerenv")) return "Docker";
  if (textOf(host, "run/.containerenv") !== undefined) return "Podman";
  return container || null;
}

/** The container, if any: its limits are what other checks look at. */
export const container = defineCheck({
  ...{ name: "container", section: "limits", what: "Container" },
  look: (host) => ({ container: containerOf(host) }),
  judge: ({ container: kind }) => ({ state: "ok", value: kind ?? "none that can be seen" }),
});
