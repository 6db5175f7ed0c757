import { useEffect, useRef } from "preact/hooks";

interface Props {
  readonly sheet: string;
  readonly count: number;
  readonly columns: number;
  readonly rows: number;
  /** Width by height of a picture. */
  readonly shape: number;
  /** Of the whole video. */
  readonly seconds: number;
}

/** Pictures of a sheet, one after the other, as long as the video takes. */
export function Sheet({ sheet, count, columns, rows, shape, seconds }: Props) {
  const element = useRef<HTMLSpanElement>(null);
  useEffect(() => {
    const began = performance.now();
    const timer = setInterval(() => {
      const at = Math.floor(((performance.now() - began) / 1000 / seconds) * count) % count;
      const [x, y] = [at % columns, Math.floor(at / columns)];
      const part = (index: number, of: number) => (of === 1 ? 0 : (100 * index) / (of - 1));
      if (element.current) element.current.style.backgroundPosition = `${part(x, columns)}% ${part(y, rows)}%`;
    }, 40);
    return () => clearInterval(timer);
  }, [count, columns, rows, seconds]);
  return (
    <span
      ref={element}
      class="sheet"
      style={{
        "--shape": `${shape}`,
        backgroundImage: `url("${sheet}")`,
        backgroundSize: `${100 * columns}% ${100 * rows}%`,
      }}
    />
  );
}
