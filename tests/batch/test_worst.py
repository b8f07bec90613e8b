from PIL import Image

from animate4d.batch.worst import COUNT, write_worst


def test_the_lowest_scores_come_first_as_pictures_that_mlflow_shows(tmp_path, done, failed):
    results = [done(f"r{number}", iou=0.5 + number / 100) for number in range(COUNT + 2)]
    for result in results[:-1]:
        folder = tmp_path / result.row.id
        folder.mkdir()
        frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 128, 255)]
        frames[0].save(folder / "thumb.webp", save_all=True, append_images=frames[1:], lossless=True)
    pictures = tmp_path / "worst"
    pictures.mkdir()
    written = write_worst(pictures, tmp_path, [*results[::-1], failed("bad", "no")])
    assert [path.name for path in written] == [f"{n + 1:02d}-{0.5 + n / 100:.2f}-r{n}.png" for n in range(COUNT)]
    with Image.open(written[0]) as picture:
        assert picture.getpixel((4, 4)) == (128, 0, 0)


def test_a_result_without_a_picture_is_passed_over(tmp_path, done):
    assert write_worst(tmp_path, tmp_path, [done("r0")]) == []
