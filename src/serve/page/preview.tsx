import { useEffect, useRef } from "preact/hooks";
import type { PreviewEvent } from "../schemas.js";

const FRAME_MS = 160;

export const movesLittle = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** The pictures of a preview, one after the other, there and back. */
export function Preview({ preview }: { readonly preview: PreviewEvent }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const shown = useRef(0);
  const { frames, width, height, b64_json: data } = preview;
  useEffect(() => {
    const image = new Image();
    let timer = 0;
    const draw = () => {
      const round = Math.max(1, 2 * frames - 2);
      const at = movesLittle() ? Math.floor(frames / 2) : shown.current % round;
      const frame = at < frames ? at : round - at;
      canvas.current?.getContext("2d")?.drawImage(image, 0, frame * height, width, height, 0, 0, width, height);
      shown.current += 1;
    };
    image.onload = () => {
      draw();
      timer = window.setInterval(draw, FRAME_MS);
    };
    image.src = `data:image/jpeg;base64,${data}`;
    return () => {
      image.onload = null;
      clearInterval(timer);
    };
  }, [frames, width, height, data]);
  return <canvas ref={canvas} width={width} height={height} role="img" aria-label="Preview of the video" />;
}
