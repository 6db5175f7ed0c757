import { DitrunError } from "../../failure.js";

/** More hosts than any job has; a list that stands for more is a mistake. */
const MOST_HOSTS = 65_536;

/**
 * The hosts of a Slurm hostlist in order, `n[001,007-009]-ib,login` (Slurm, "Hostlist expressions" of scontrol(1)). Numbers keep
 * their leading zeros; a name may have several brackets.
 * @throws DitrunError where it is none.
 */
export function parseHostlist(list: string): string[] {
  const hosts = splitOutside(list).flatMap((name) => expand(name, list));
  if (hosts.length === 0 || hosts.some((host) => host === "")) throw wrong(list);
  return hosts;
}

/** At the commas that stand outside of brackets. */
function splitOutside(list: string): string[] {
  const parts = list.match(/(?:[^,[\]]|\[[^[\]]*\])+/g) ?? [];
  if (parts.join(",") !== list) throw wrong(list);
  return parts;
}

function expand(name: string, list: string): string[] {
  const [, before = "", inside, after = ""] = /^([^[]*)\[([^\]]*)\](.*)$/.exec(name) ?? [];
  if (inside === undefined) return [name];
  const rest = expand(after, list);
  const numbers = inside.split(",").flatMap((range) => numbersOf(range, list));
  if (numbers.length * rest.length > MOST_HOSTS) throw wrong(list);
  return numbers.flatMap((number) => rest.map((end) => `${before}${number}${end}`));
}

function numbersOf(range: string, list: string): string[] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
  if (first === undefined || last === undefined) throw wrong(list);
  const count = Number(last) - Number(first) + 1;
  if (!(count >= 1 && count <= MOST_HOSTS)) throw wrong(list);
  return Array.from({ length: count }, (_, index) => String(Number(first) + index).padStart(first.length, "0"));
}

function wrong(list: string): DitrunError {
  const shown = list.length > 200 ? `${list.slice(0, 200)} …` : list;
  return new DitrunError(
    "ERR_ALLOCATION",
    `"${shown}" is no list of Slurm's hosts, such as n[001-004]: give --master-addr and --node-rank.`,
  );
}
