"""Parts of videos in a table, found by words, a video or an image: what the command `vidformers search` does."""

import io
import os
from functools import cached_property

import torch
from PIL import Image
from torch.nn.functional import normalize

from vidformers.inference.embedder import VideoEmbedder
from vidformers.inference.media import ImageClip
from vidformers.inference.search import Span, find_spans
from vidformers.inference.store import Store
from vidformers.inference.windows import Windows
from vidformers.progress import Progress, no_progress
from vidformers.video import probe_video


class Searcher:
    """A table of embeddings, ready to be searched with the model that made them.

    Args:
        table: its name, which ends in .lance; [`~vidformers.inference.Store`] says what it holds.
        model: where the model is now, if that is not where the table says: a directory or a repository on the Hub.
        device: where the model runs, as for [`~VideoEmbedder.from_pretrained`].
        index: as for [`~inference.find_spans`].
        progress: called with an activity and how much of it is done.

    Raises:
        OSError: there is no such table, or it cannot be read.
        ValueError: it holds something else, or nothing.
    """

    def __init__(
        self,
        table: str | os.PathLike,
        *,
        model: str | os.PathLike | None = None,
        device: str | None = None,
        index: bool | None = None,
        progress: Progress = no_progress,
    ):
        self.store, self._model, self._device = Store(table), model, device
        self._index, self._progress = index, progress
        if not self.store.count():
            raise ValueError(f"{table}: holds no rows yet. Add some: vidformers embed VIDEOS --model … --out {table}")

    def search(
        self,
        words: str | None = None,
        *,
        video: str | os.PathLike | None = None,
        image: str | os.PathLike | None = None,
        top: int = 5,
        where: str | None = None,
    ) -> list[Span]:
        """Find the parts of videos that are closest to a query.

        Args:
            words: what they show, for tables of video-text models. The model's templates are filled with the words,
                and the embeddings of these sentences averaged.
            video: or a file that shows the like, of which one clip is embedded;
            image: or a picture, which is shown to the model for as many frames as it is meant for.
            top: how many at most.
            where: a condition on the table's columns in SQL, such as "start_seconds > 60".

        Returns:
            Spans, the best first.

        Raises:
            OSError: the table's model is not there.
            VideoDecodeError: the video or the image cannot be read.
            ValueError: not one of words, video and image; words for a model without texts; a condition that lancedb
                doesn't take; or the model is another than the table's by now.
        """
        if sum(query is not None for query in (words, video, image)) != 1:
            raise ValueError("Expected one query: words, a video or an image.")
        if words is not None:
            self._check_words(words)
        elif video is not None:
            probe_video(video)
        still = None if image is None else _as_video(image)
        self.store.count(where)
        if words is not None:
            vector = self._embed_words(words)
        elif video is not None:
            vector = self.embedder.encode([video])[0]
        else:
            shown = Windows.preset("whole", num_frames=self.embedder.num_frames)
            vector = self.embedder.encode_windows(still, shown)[0].embedding
        return find_spans(self.store, vector, top, where, self._index, self._progress)

    @cached_property
    def embedder(self) -> VideoEmbedder:
        """The table's model, as it was used for the rows. It is loaded when it is first asked for."""
        made_with = self.store.settings
        # Of a directory the table knows a digest, which `check_embedder` compares.
        revision = made_with["revision"] if self._model is None and len(made_with["revision"]) == 40 else "main"
        self._progress("loading the model", 0, 1)
        embedder = VideoEmbedder.from_pretrained(
            self._model or made_with["model"],
            revision=revision,
            dtype=made_with["dtype"],
            device=self._device,
            pool=made_with["pool"],
            num_frames=made_with["num_frames"],
        )
        self.store.check_embedder(embedder)
        self._progress("loading the model", 1, 1)
        return embedder

    def _check_words(self, words: str) -> None:
        if not words.strip():
            raise ValueError("Expected words to search for, got none.")
        if self.store.settings["pool"] != "joint":
            raise ValueError(
                f"{self.store.uri}: its rows are features by {self.store.settings['model']} that no text compares "
                "with. Search by a video or an image, or embed the videos with a video-text model (VideoPrism's CLIP, "
                "PE Video, PE core)."
            )

    def _embed_words(self, words: str) -> torch.Tensor:
        """(D,) of length one."""
        words = words.strip().removesuffix(".")
        vectors = self.embedder.encode_text([each.format(words) for each in self.embedder.model.text_templates])
        return normalize(vectors.mean(0), dim=0)


def _as_video(image: str | os.PathLike) -> io.BytesIO:
    """A picture, upright, as a video of one frame."""
    file = io.BytesIO()
    Image.fromarray(ImageClip(os.fspath(image), 0, image).read()).save(file, "PNG")
    return file
